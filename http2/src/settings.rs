//! SETTINGS (RFC 9113, 6.5): what a peer may say of itself, and how ours is written.

use crate::Role;
use crate::error::{ConnectionError, Reason};
use crate::frame::{self, ACK, Kind, U31_MAX};

const HEADER_TABLE_SIZE: u16 = 0x1;
pub(crate) const ENABLE_PUSH: u16 = 0x2;
pub(crate) const CONCURRENT_STREAMS_MAX: u16 = 0x3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
const FRAME_SIZE_MAX: u16 = 0x5;
pub(crate) const HEADER_LIST_SIZE_MAX: u16 = 0x6;
/// RFC 8441, 3.
pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// Window of a stream and of the connection before either end says otherwise (RFC 9113, 6.9.2).
pub(crate) const WINDOW_DEFAULT: u32 = 65_535;

/// What a peer has said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Streams that we may have open; none are refused while it is `u32::MAX`.
    pub(crate) concurrent_streams_max: u32,
    pub(crate) initial_window: u32,
    pub(crate) frame_bytes_max: u32,
    /// What it would like heads to be at most.
    pub(crate) header_list_bytes_max: u32,
    pub(crate) extended_connect: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrent_streams_max: u32::MAX,
            initial_window: WINDOW_DEFAULT,
            frame_bytes_max: frame::FRAME_BYTES as u32,
            header_list_bytes_max: u32::MAX,
            extended_connect: false,
        }
    }
}

impl Settings {
    /// Takes what a SETTINGS frame says, in its order; `role` is that of the receiving end.
    pub(crate) fn apply(&mut self, payload: &[u8], role: Role) -> Result<(), ConnectionError> {
        for entry in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([entry[0], entry[1]]);
            let value = frame::number(&entry[2..]);
            match id {
                // Our encoder has no table: any size will do.
                HEADER_TABLE_SIZE => {}
                ENABLE_PUSH => match (value, role) {
                    // RFC 9113, 6.5.2: a server says nothing, or 0.
                    (0, _) | (1, Role::Server) => {}
                    _ => return Err(ConnectionError::protocol("SETTINGS_ENABLE_PUSH out of range")),
                },
                CONCURRENT_STREAMS_MAX => self.concurrent_streams_max = value,
                INITIAL_WINDOW_SIZE if value > U31_MAX => {
                    let debug = "SETTINGS_INITIAL_WINDOW_SIZE out of range";
                    return Err(ConnectionError::new(Reason::FlowControlError, debug));
                }
                INITIAL_WINDOW_SIZE => self.initial_window = value,
                FRAME_SIZE_MAX if !(frame::FRAME_BYTES as u32..1 << 24).contains(&value) => {
                    return Err(ConnectionError::protocol("SETTINGS_MAX_FRAME_SIZE out of range"));
                }
                FRAME_SIZE_MAX => self.frame_bytes_max = value,
                HEADER_LIST_SIZE_MAX => self.header_list_bytes_max = value,
                ENABLE_CONNECT_PROTOCOL => match (value, self.extended_connect) {
                    (0, false) => {}
                    (1, _) => self.extended_connect = true,
                    // RFC 8441, 3: nor is it taken back.
                    _ => return Err(ConnectionError::protocol("SETTINGS_ENABLE_CONNECT_PROTOCOL out of range")),
                },
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes a SETTINGS frame of ours.
pub(crate) fn write(out: &mut Vec<u8>, entries: &[(u16, u32)]) {
    frame::write_header(out, entries.len() * 6, Kind::Settings, 0, 0);
    for (id, value) in entries {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn write_ack(out: &mut Vec<u8>) {
    frame::write_header(out, 0, Kind::Settings, ACK, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(entries: &[(u16, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, entries);
        bytes.split_off(frame::HEADER_BYTES)
    }

    #[test]
    fn each_setting_has_its_range_and_its_error() {
        let protocol = Some(Reason::ProtocolError);
        let cases = [
            (Role::Server, ENABLE_PUSH, 1, None),
            (Role::Server, ENABLE_PUSH, 2, protocol),
            (Role::Client, ENABLE_PUSH, 0, None),
            (Role::Client, ENABLE_PUSH, 1, protocol),
            (Role::Client, INITIAL_WINDOW_SIZE, U31_MAX, None),
            (Role::Client, INITIAL_WINDOW_SIZE, U31_MAX + 1, Some(Reason::FlowControlError)),
            (Role::Client, FRAME_SIZE_MAX, 16_383, protocol),
            (Role::Client, FRAME_SIZE_MAX, 16_384, None),
            (Role::Client, FRAME_SIZE_MAX, (1 << 24) - 1, None),
            (Role::Client, FRAME_SIZE_MAX, 1 << 24, protocol),
            (Role::Client, ENABLE_CONNECT_PROTOCOL, 1, None),
            (Role::Client, ENABLE_CONNECT_PROTOCOL, 2, protocol),
            (Role::Client, HEADER_TABLE_SIZE, 0, None),
            (Role::Client, CONCURRENT_STREAMS_MAX, 0, None),
            (Role::Client, 0xffff, 7, None),
        ];
        for (role, id, value, expected) in cases {
            let found = Settings::default().apply(&payload(&[(id, value)]), role).err().map(|error| error.reason);
            assert_eq!(found, expected, "{role:?} {id} {value}");
        }
    }

    #[test]
    fn later_values_stand_and_extended_connect_is_not_taken_back() {
        let mut settings = Settings::default();
        let twice = payload(&[(INITIAL_WINDOW_SIZE, 1), (INITIAL_WINDOW_SIZE, 2), (ENABLE_CONNECT_PROTOCOL, 1)]);
        settings.apply(&twice, Role::Client).unwrap();
        assert_eq!((settings.initial_window, settings.extended_connect), (2, true));
        assert!(settings.apply(&payload(&[(ENABLE_CONNECT_PROTOCOL, 0)]), Role::Client).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_applied_stays_in_range(entries in prop::collection::vec((0_u16..10, any::<u32>()), 0..8)) {
            let mut settings = Settings::default();
            let _ = settings.apply(&payload(&entries), Role::Server);
            prop_assert!(settings.initial_window <= U31_MAX);
            prop_assert!((16_384..1 << 24).contains(&settings.frame_bytes_max));
        }
    }
}
