//! Members behind mutual TLS.

use std::net::TcpListener;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ringway_control::consensus::{MemberInfo, Node, Options, PeerTls, Role, Timing};
use ringway_control::store::record::Vote;
use ringway_control::transport::tls::Renewed;
use ringway_control::transport::{CallError, Dialer, Peer, Rpc, VoteAnswer, VoteCall};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::harness::{Registers, deadline, eventually, set, until};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(authority: &Authority, address: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![address.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A member's configurations: both sides show a certificate of `own` and want one of `trusted`.
fn tls(own: &Authority, trusted: &Authority, address: &str) -> PeerTls {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let (chain, key) = certificate(own, address);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider()).build().unwrap();
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .unwrap();
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    PeerTls { server: Arc::new(server).into(), client: Arc::new(client).into() }
}

async fn ask(address: &str, client: Option<Renewed<ClientConfig>>) -> Result<VoteAnswer, CallError> {
    let dialer = Dialer::new("blue".to_owned(), None, deadline(), client);
    let call = VoteCall { vote: Vote { term: 0, leader: 9, committed: false }, last: None, transfer: false };
    Peer::new(Arc::new(dialer), 1, address.to_owned()).call(Rpc::PreVote, &call, deadline()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_with_certificates_form_a_cluster_and_others_are_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(), authority());
    let mut nodes = Vec::new();
    for id in 1..=3u64 {
        let listener = TcpListener::bind((format!("127.0.0.{id}"), 0)).unwrap();
        let peer_address = listener.local_addr().unwrap().to_string();
        let info = MemberInfo { name: format!("m{id}"), peer_address, api_address: String::new() };
        let options = Options {
            directory: directory.path().join(id.to_string()),
            cluster: "blue".to_owned(),
            node: id,
            info: info.clone(),
            listener,
            tls: Some(tls(&ours, &ours, &format!("127.0.0.{id}"))),
            timing: Timing::lan(),
            snapshot_every: 100,
            answerer: None,
            keep: 10,
        };
        let registers = Registers::default();
        nodes.push((Node::start(options, registers.clone()).await.unwrap(), registers, info));
    }
    let leader = nodes[0].0.clone();
    leader.initialize().await.unwrap();
    for (id, (_, _, info)) in (2..).zip(&nodes[1..]) {
        eventually("add", || leader.add_learner(id, info.clone())).await;
        eventually("promote", || leader.promote(id)).await;
    }
    for value in 0..300 {
        // Whichever leads by now.
        let leading = || nodes.iter().map(|(node, ..)| node).find(|node| node.status().role == Role::Leader);
        eventually("a write", || leading().unwrap_or(&leader).propose(set("a", value))).await;
    }
    for (_, registers, _) in &nodes {
        until("every member has the writes", || registers.get("a").filter(|value| *value == 299)).await;
    }
    let address = nodes[0].2.peer_address.clone();
    let insider = tls(&ours, &ours, "127.0.0.9");
    let outsider = tls(&theirs, &ours, "127.0.0.9");
    assert!(ask(&address, Some(insider.client)).await.is_ok());
    for client in [None, Some(outsider.client)] {
        let refused = ask(&address, client).await;
        assert!(matches!(refused, Err(CallError::Dial { .. } | CallError::Broken { .. })), "{refused:?}");
    }
    for (node, ..) in nodes {
        node.stop().await;
    }
}
