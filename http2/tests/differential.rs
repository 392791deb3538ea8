//! Beside the `h2` crate, on the same bytes: the same is delivered, the same streams are reset with the same codes, and the same errors
//! end connections. Ours is fed at every split besides. Where the two differ, a test of its own says how, and why.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ours;
mod scripts;
mod seen;
mod theirs;
mod wrong;

use ours::ours;
use proptest::prelude::*;
use ringway_http2::Role;
use ringway_message::Limits;
use scripts::{Script, script};
use theirs::theirs;

const HEAD: Limits = Limits { head_bytes_max: 16 * 1024, fields_max: 100 };
const STREAMS_MAX: u32 = 8;
/// Requests that a client has sent when its server's bytes come.
const ASKED: u32 = 4;

fn agree(role: Role, script: &Script) -> Result<(), TestCaseError> {
    let (whole, theirs) = (ours(role, &[&script.0]), theirs(role, &script.0));
    prop_assert_eq!(&whole, &theirs, "ours is left");
    prop_assert_eq!((&whole.resets[..], whole.error), (&[][..], None));
    prop_assert!(!whole.messages.is_empty());
    for cut in 1..script.0.len() {
        let (one, two) = script.0.split_at(cut);
        prop_assert_eq!(&ours(role, &[one, two]), &whole, "cut at {}", cut);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_server_makes_of_a_client_s_bytes_what_h2_makes_at_every_split(script in script(Role::Server)) {
        agree(Role::Server, &script)?;
    }

    #[test]
    fn a_client_makes_of_a_server_s_bytes_what_h2_makes_at_every_split(script in script(Role::Client)) {
        agree(Role::Client, &script)?;
    }
}
