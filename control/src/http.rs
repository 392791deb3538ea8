//! A client of the API: any member will do.

pub(crate) mod advice;
mod call;
mod endpoint;
mod lines;
mod problem;

pub use self::call::{CallError, get, send};
pub use self::endpoint::{Client, Endpoint, EndpointError, Opened, Patience};
pub use self::lines::{Followed, Lines};
pub use self::problem::Problem;
use crate::Code;
use crate::transport::tls::{self, TlsError};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode, header};
use ringway_config::model::{Control, MemberUrl};
use rustls::pki_types::ServerName;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Until a connection stands, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Until an answer begins: some are waited for, some decided by a quorum.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// Until one begins that nothing is waited for.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a file says how TLS is to be.
const SECTION: &str = "control.tls";
/// Largest answer: a backup.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Where members are, and what is shown to them.
#[derive(Clone)]
pub struct Api {
    members: Vec<MemberUrl>,
    tls: Option<Arc<rustls::ClientConfig>>,
    server_name: Option<String>,
    authorization: Option<header::HeaderValue>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The settings are of no use.
    #[error("{place}: {source}")]
    Tls {
        /// What has named the file.
        place: String,
        /// Why.
        source: TlsError,
    },
    /// The token cannot be read.
    #[error("`--token-file` (in a file `control.token_file`): {}: {reason}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A member cannot be reached.
    #[error("{member}: {reason}")]
    Unreachable {
        /// Its address.
        member: String,
        /// Why.
        reason: String,
    },
    /// None of the members answers.
    #[error("no member answers{0}")]
    NoneAnswers(String),
    /// There is nobody to ask.
    #[error("no member of the control plane is named: write `control: {{ members: [ \"https://HOST:9700\" ] }}`")]
    NoMembers,
    /// A member said no.
    #[error("{}", advice::of_refusal(.0))]
    Refused(Problem),
    /// A member said something else.
    #[error("{member} answered what cannot be read: {reason}")]
    Strange {
        /// Its address.
        member: String,
        /// What.
        reason: String,
    },
}

/// A connection to a member.
pub struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// It has answered: it is what it should be.
    known: bool,
    /// Whose it is.
    pub member: MemberUrl,
}

impl Api {
    /// As a proxy's configuration says.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn new(settings: &Control) -> Result<Self, ApiError> {
        let mut members = settings.members.clone();
        if members.is_empty()
            && settings.embedded
            && let Some(member) = &settings.member
        {
            members.extend(MemberUrl::parse(&format!(
                "http{}://{}",
                if member.tls.is_some() { "s" } else { "" },
                member.address
            )));
        }
        let tls = if members.iter().any(|member| member.tls) {
            let identity = settings.identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            let config = tls::client(settings.ca.as_deref(), identity, &[b"http/1.1"]);
            let failed = |source: TlsError| {
                let (ca, identity) = (settings.ca.as_deref(), settings.identity.as_ref());
                ApiError::Tls { place: advice::of_file(source.path(), ca, identity, SECTION), source }
            };
            Some(config.map_err(failed)?)
        } else {
            None
        };
        let authorization = settings.token_file.as_ref().map(|path| bearer(path)).transpose()?;
        Ok(Self { members, tls, server_name: settings.server_name.clone(), authorization })
    }

    /// How many members are known.
    #[must_use]
    pub fn members(&self) -> &[MemberUrl] {
        &self.members
    }

    /// A connection to one of them.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`].
    pub async fn connect(&self, member: &MemberUrl) -> Result<Link, ApiError> {
        let failed = |reason: String| ApiError::Unreachable { member: member.to_string(), reason };
        match tokio::time::timeout(CONNECT_TIMEOUT, self.open(member)).await {
            Ok(Ok(sender)) => Ok(Link { sender, known: false, member: member.clone() }),
            Ok(Err(reason)) => Err(failed(reason)),
            Err(_) => Err(failed(format!("no connection within {}s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    async fn open(&self, member: &MemberUrl) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream =
            TcpStream::connect((member.host.as_str(), member.port)).await.map_err(|error| error.to_string())?;
        // Small requests, each waited for.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if !member.tls {
            return call::begin(stream).await.map_err(|error| error.to_string());
        }
        let config = self.tls.clone().ok_or("TLS is not set up")?;
        let name = self.server_name.clone().unwrap_or_else(|| member.host.clone());
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(|error| advice::of_tls(&error, SECTION).unwrap_or_else(|| error.to_string()))?;
        call::begin(stream).await.map_err(|error| error.to_string())
    }

    /// Asks one member after the other until one answers; what it answers holds.
    ///
    /// # Errors
    /// See [`ApiError`]: what each of them said, if none can be asked.
    pub async fn call(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Bytes, ApiError> {
        let body: Bytes = body.into();
        let mut tried = Tried::default();
        for member in &self.members {
            let mut link = match self.connect(member).await {
                Ok(link) => link,
                Err(error) => {
                    tried.note(member, error);
                    continue;
                }
            };
            match self.ask_now(&mut link, method.clone(), path, body.clone()).await {
                // A member that has no leader says so, and one that is none any more; another may have one.
                Err(error @ ApiError::Refused(_)) if error.is(Code::NoLeader) || error.is(Code::Removed) => {
                    tried.note(member, error);
                }
                // Reading is repeated elsewhere; what may have been done is not, and is told.
                Err(error @ (ApiError::Unreachable { .. } | ApiError::Strange { .. })) if method == Method::GET => {
                    tried.note(member, error);
                }
                Err(ApiError::Unreachable { member, reason }) => {
                    return Err(ApiError::Unreachable { member, reason: format!("{reason}: it may still be done") });
                }
                other => return other,
            }
        }
        Err(tried.sum())
    }

    /// As this one, of one of its members.
    #[must_use]
    pub fn only(&self, member: &MemberUrl) -> Self {
        Self { members: vec![member.clone()], ..self.clone() }
    }

    /// As [`Api::call`], JSON both ways.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, ApiError> {
        let answer = self.call(method, path, body.map(ToString::to_string).unwrap_or_default()).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| ApiError::Strange { member: "a member".into(), reason: error.to_string() })
    }

    /// Asks over a connection, and reads the answer to its end.
    ///
    /// # Errors
    /// See [`ApiError`]; past [`ApiError::Refused`], the connection is of no more use.
    pub async fn ask(&self, link: &mut Link, method: Method, path: &str, body: Bytes) -> Result<Bytes, ApiError> {
        let response = self.begin(link, method, path, body).await?;
        whole(link, response).await
    }

    /// As [`Api::ask`], where reading is a matter of what is there.
    async fn ask_now(&self, link: &mut Link, method: Method, path: &str, body: Bytes) -> Result<Bytes, ApiError> {
        let timeout = if method == Method::GET { READ_TIMEOUT } else { ANSWER_TIMEOUT };
        let response = self.begin_as(link, (method, path), ("application/json", body), timeout).await?;
        whole(link, response).await
    }

    /// As [`Api::ask`], with a body that is no JSON.
    ///
    /// # Errors
    /// As [`Api::ask`].
    pub async fn ask_bytes(&self, link: &mut Link, method: Method, path: &str, body: Bytes) -> Result<Bytes, ApiError> {
        let response = self.begin_as(link, (method, path), ("application/octet-stream", body), ANSWER_TIMEOUT).await?;
        whole(link, response).await
    }

    /// Asks over a connection; the answer's body is the caller's to read.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`].
    pub async fn begin(
        &self,
        link: &mut Link,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ApiError> {
        self.begin_as(link, (method, path), ("application/json", body), ANSWER_TIMEOUT).await
    }

    async fn begin_as(
        &self,
        link: &mut Link,
        (method, path): (Method, &str),
        (content_type, body): (&'static str, Bytes),
        timeout: Duration,
    ) -> Result<Response<Incoming>, ApiError> {
        let member = link.member.to_string();
        let failed = |reason: String| ApiError::Unreachable { member: member.clone(), reason };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, link.member.authority())
            .header(header::CONTENT_TYPE, content_type);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(timeout, link.sender.send_request(request)).await {
            Ok(Ok(response)) => {
                link.known = true;
                Ok(response)
            }
            // What a member thinks of a certificate, it says after the handshake.
            Ok(Err(error)) => Err(failed(match advice::of_tls(&error, SECTION) {
                Some(why) => why,
                None if !link.member.tls && !link.known && (error.is_parse() || error.is_incomplete_message()) => {
                    format!("{error}: {}", advice::PERHAPS_TLS)
                }
                None => error.to_string(),
            })),
            Err(_) => Err(failed(format!("no answer within {}s", timeout.as_secs()))),
        }
    }
}

/// What is answered, to its end.
async fn whole(link: &Link, response: Response<Incoming>) -> Result<Bytes, ApiError> {
    let member = link.member.to_string();
    let failed = |reason: String| ApiError::Strange { member: member.clone(), reason };
    let status = response.status();
    let body = tokio::time::timeout(ANSWER_TIMEOUT, call::body(response, ANSWER_BYTES_MAX)).await;
    let body = body.map_err(|_| failed("the answer does not end".into()))?;
    let body = body.map_err(|error| failed(error.to_string()))?;
    if status.is_success() { Ok(body) } else { Err(ApiError::Refused(problem(status, &body))) }
}

/// What each member said that was asked in vain.
#[derive(Default)]
struct Tried {
    said: Vec<(String, ApiError)>,
}

impl Tried {
    fn note(&mut self, member: &MemberUrl, error: ApiError) {
        self.said.push((member.to_string(), error));
    }

    /// One that was reached and knows no leader says more of the cluster than one that was not.
    fn sum(mut self) -> ApiError {
        if self.said.len() < 2 {
            return self.said.pop().map_or(ApiError::NoMembers, |(_, error)| error);
        }
        let line = |(member, error): &(String, ApiError)| match error {
            ApiError::Unreachable { reason, .. } => format!("{member}: not reached: {reason}"),
            ApiError::Refused(problem) => format!("{member}: {}", problem.detail),
            error => format!("{member}: {error}"),
        };
        let lines = self.said.iter().map(line).collect::<Vec<_>>().join("; ");
        let refused = self.said.into_iter().find_map(|(_, error)| match error {
            ApiError::Refused(problem) => Some(problem),
            _ => None,
        });
        match refused {
            Some(problem) => {
                let detail = format!(
                    "no member leads with a quorum: nothing was changed; ask again in a moment. Asked were: {lines}"
                );
                ApiError::Refused(Problem { detail, ..problem })
            }
            None => ApiError::NoneAnswers(format!(": {lines}")),
        }
    }
}

impl ApiError {
    /// Whether it is refused, and this is why.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        matches!(self, Self::Refused(problem) if problem.is(code))
    }
}

/// What a refusal says; of something that does not speak as members do, the status.
pub(crate) fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        Problem::new(status.as_u16(), Code::Http, format!("the answer is {status}, and not as of a member"))
    })
}

fn bearer(path: &std::path::Path) -> Result<header::HeaderValue, ApiError> {
    let failed = |reason: String| ApiError::Token { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let mut value = header::HeaderValue::from_str(&format!("Bearer {}", text.trim()))
        .map_err(|_| failed("it must be one line of letters and digits".into()))?;
    value.set_sensitive(true);
    Ok(value)
}
