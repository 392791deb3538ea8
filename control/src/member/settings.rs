//! Settings, from those of a file or of the command line.

use crate::consensus::PeerTls;
use crate::transport::tls::{self, TlsError};
use ringway_config::model::{self};
use std::path::PathBuf;
use tokio::task::JoinHandle;

/// A client's settings for members that are to be joined.
#[must_use]
pub fn client_settings(members: &[String], token_file: Option<PathBuf>, ca: Option<PathBuf>) -> model::Control {
    model::Control {
        members: members.iter().filter_map(|member| model::MemberUrl::parse(member)).collect(),
        embedded: false,
        proxy: None,
        directory: PathBuf::new(),
        token_file,
        ca,
        identity: None,
        server_name: None,
        etcd: None,
        member: None,
    }
}

/// Of the listener for members and of calls to them, with a task that follows the files.
pub(crate) fn peer_tls(files: &model::MemberTls, tasks: &mut Vec<JoinHandle<()>>) -> Result<PeerTls, TlsError> {
    let files = files.clone();
    let followed = followed(&files);
    let read = move || {
        let ca = files.ca.as_deref();
        let server = tls::server(&files.certificate, &files.key, ca, true, &[b"h2"])?;
        Ok::<_, TlsError>((server, tls::client(ca, Some((&files.certificate, &files.key)), &[b"h2"])?))
    };
    let (server, client) = read()?;
    let current = PeerTls { server: server.into(), client: client.into() };
    let renewed = current.clone();
    tasks.push(tokio::spawn(followed.0.follow(followed.1, move || {
        let (server, client) = read()?;
        renewed.server.renew(server);
        renewed.client.renew(client);
        Ok(())
    })));
    Ok(current)
}

pub(super) fn followed(files: &model::MemberTls) -> (tls::Files, PathBuf) {
    let paths = [Some(&files.certificate), Some(&files.key), files.ca.as_ref()];
    (tls::Files::new(paths.into_iter().flatten().cloned().collect()), files.certificate.clone())
}
