//! Answers: what is asked for, or a problem.

use crate::Code;
use crate::http::Problem;
use crate::plane::PlaneError;
use crate::state::Refusal;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{Response, StatusCode, header};
use std::convert::Infallible;

/// Longest text of an answer that refuses.
const DETAIL_BYTES_MAX: usize = 8 * 1024;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) fn problem(status: u16, code: Code, detail: impl Into<String>) -> Problem {
    Problem::new(status, code, detail)
}

impl From<PlaneError> for Problem {
    fn from(error: PlaneError) -> Self {
        match error {
            PlaneError::NoLeader => problem(503, Code::NoLeader, error.to_string()),
            PlaneError::Unknown => problem(504, Code::UnknownOutcome, error.to_string()),
            PlaneError::Refused(refusal) => refusal.into(),
            PlaneError::Member(why) => problem(409, Code::Members, why),
            PlaneError::Internal(why) => problem(500, Code::Internal, why),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        // What a later version refuses, it refuses for what the request says.
        let status = Code::of(&refusal.code).map_or(422, status);
        Self { status, code: refusal.code, detail: refusal.message, findings: refusal.findings }
    }
}

/// Of a text, what fits into so many bytes.
pub(super) fn cut(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
}

/// Of a refusal. What is refused before anything is proposed may have another, nearer to what is wrong with the request.
fn status(code: Code) -> u16 {
    match code {
        Code::BadBody
        | Code::BadCondition
        | Code::BadConsistency
        | Code::BadFlag
        | Code::BadNumber
        | Code::BadPosition => 400,
        Code::BadToken | Code::ExpiredToken | Code::NoToken => 401,
        Code::ForeignPage | Code::NotYours | Code::WrongRole => 403,
        Code::NotFound | Code::UnknownPath | Code::UnknownRevision => 404,
        Code::BadMethod => 405,
        Code::Slow => 408,
        Code::Locked
        | Code::WrongToken
        | Code::RolloutActive
        | Code::RolloutOver
        | Code::WrongStage
        | Code::Initialized
        | Code::GuardEmpty
        | Code::GuardLoss
        | Code::Deposed
        | Code::Members
        | Code::OtherCluster
        | Code::RestoreOrder => 409,
        Code::Removed => 410,
        Code::Stale => 412,
        Code::TooLarge | Code::TooMany => 413,
        Code::BadAddress
        | Code::BadCertificate
        | Code::BadEpoch
        | Code::BadName
        | Code::BadPolicy
        | Code::BadTtl
        | Code::CertificateExpired
        | Code::Damaged
        | Code::IdempotencyMismatch
        | Code::Invalid
        | Code::Known
        | Code::Moved
        | Code::OutOfRange
        | Code::Unjudged
        | Code::UnknownRules
        | Code::WrongKind => 422,
        // The last are said by the command line alone.
        Code::Internal | Code::Http | Code::NoMember | Code::QuorumAlive | Code::Recover | Code::Running => 500,
        Code::Busy | Code::NoLeader | Code::Stopped => 503,
        Code::UnknownOutcome => 504,
    }
}

pub(super) fn problem_answer(problem: &Problem) -> Response<Body> {
    // What is wrong is often told with what was sent, and that may be long.
    let mut problem = problem.clone();
    for text in problem.findings.iter_mut().chain([&mut problem.detail]) {
        cut(text, DETAIL_BYTES_MAX);
    }
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_string(&problem).expect("invariant: a problem is texts and a number under names");
    let mut response = full(status, "application/problem+json", text);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

pub(super) fn json(value: &serde_json::Value) -> Response<Body> {
    full(StatusCode::OK, "application/json", format!("{value}\n"))
}

pub(super) fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
