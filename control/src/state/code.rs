//! Stable names of what is refused and why: the one list. Clients decide by them, so a name is never given another meaning.

/// Declares the names once: what they are called in JSON, and what they mean.
macro_rules! codes {
    ($($code:ident = $name:literal, $meaning:literal;)+) => {
        /// Why something is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $code,)+
        }

        impl Code {
            /// Every one, by name.
            pub const ALL: &'static [Self] = &[$(Self::$code,)+];

            /// As in JSON.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)+
                }
            }

            /// For people.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$code => $meaning,)+
                }
            }
        }
    };
}

codes! {
    BadAddress = "bad_address", "A backend's address is no IP address and port.";
    BadBody = "bad_body", "The request's body cannot be read as what it should be.";
    BadCertificate = "bad_certificate", "A certificate and its key cannot be used, or do not belong together.";
    BadCondition = "bad_condition", "`If-Match` or `If-None-Match` cannot be read.";
    BadConsistency = "bad_consistency", "`consistency` is neither `linearizable` nor `stale`.";
    BadEpoch = "bad_epoch", "An epoch that proxies may have seen.";
    BadFlag = "bad_flag", "A parameter that is `true` or `false` is neither.";
    BadMethod = "bad_method", "The path has no such method.";
    BadName = "bad_name", "A name, or an object's key, is none.";
    BadNumber = "bad_number", "A number is none.";
    BadPolicy = "bad_policy", "A rollout's policy cannot be followed.";
    BadPosition = "bad_position", "A place in the history is not `EPOCH.REVISION`.";
    BadToken = "bad_token", "Nobody knows the bearer token.";
    BadTtl = "bad_ttl", "A time is none, or no life for a lease.";
    Busy = "busy", "Too much at once: ask again, or another member.";
    CertificateExpired = "certificate_expired", "A certificate has expired.";
    Damaged = "damaged", "A backup is none, or is damaged.";
    Deposed = "deposed", "The leader that has proposed it is not the leader any more.";
    ExpiredToken = "expired_token", "The bearer token has expired.";
    ForeignPage = "foreign_page", "A page of another origin asks, in a browser.";
    GuardEmpty = "guard_empty", "Nothing of a service would take traffic any more.";
    GuardLoss = "guard_loss", "Too much at once would take no traffic any more.";
    Http = "http", "What answers does not speak as members do.";
    IdempotencyMismatch = "idempotency_mismatch", "The same `Idempotency-Key` was something else before.";
    Initialized = "initialized", "The cluster has a name already.";
    Internal = "internal", "A fault of the member.";
    Invalid = "invalid", "A configuration is not valid: `findings` say where.";
    Known = "known", "It is so already.";
    Locked = "locked", "Somebody else holds the lock.";
    Members = "members", "The members cannot be changed so.";
    Moved = "moved", "What it was judged by has changed meanwhile.";
    NoLeader = "no_leader", "No leader is followed: ask another member.";
    NoMember = "no_member", "There is no member on this disk.";
    NoToken = "no_token", "Neither a token nor a known certificate, or no fencing token, was shown.";
    NotFound = "not_found", "It is not there.";
    NotYours = "not_yours", "Somebody else has registered it.";
    OtherCluster = "other_cluster", "A backup is another cluster's.";
    OutOfRange = "out_of_range", "A weight or a tier is too large.";
    QuorumAlive = "quorum_alive", "The majority lives: nobody needs a way out.";
    Recover = "recover", "A member's disk cannot be recovered from.";
    Removed = "removed", "This member was removed: ask another.";
    RestoreOrder = "restore_order", "A part of a backup does not follow the one before.";
    RolloutActive = "rollout_active", "A rollout is under way.";
    RolloutOver = "rollout_over", "The rollout has ended.";
    Running = "running", "The member runs: stop it first.";
    Slow = "slow", "The request's body did not come.";
    Stale = "stale", "A condition does not hold: it was changed meanwhile.";
    Stopped = "stopped", "This member has stopped: ask another.";
    TooLarge = "too_large", "A text or a body is too large.";
    TooMany = "too_many", "There are as many as there may be.";
    Unjudged = "unjudged", "The change was not judged by whoever has proposed it.";
    UnknownOutcome = "unknown_outcome", "Whether it has come about is not known; of all others, nothing has.";
    UnknownPath = "unknown_path", "There is no such path.";
    UnknownRevision = "unknown_revision", "The revision is not remembered.";
    UnknownRules = "unknown_rules", "Not all members know the rules that it takes.";
    WrongKind = "wrong_kind", "An object is of another kind than its key.";
    WrongRole = "wrong_role", "The caller's role does not allow it.";
    WrongStage = "wrong_stage", "The rollout is not there yet, or is past it.";
    WrongToken = "wrong_token", "The lock is held with a later fencing token.";
}

impl Code {
    /// Those that no member answers with: the command line says them of what it sees itself.
    pub const LOCAL: &'static [Self] = &[Self::Http, Self::NoMember, Self::QuorumAlive, Self::Recover, Self::Running];

    /// Of a name; `None`: of a later version's.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_that_of_one_code_and_they_are_in_order() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].name() < pair[1].name()));
        assert!(Code::ALL.iter().all(|code| Code::of(code.name()) == Some(*code)));
        assert_eq!(Code::of("of_a_later_version"), None);
    }
}
