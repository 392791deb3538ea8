//! How large a file may be: what is read costs memory and time in proportion to it, and no more than this.

use crate::diagnostic::{Diagnostic, Place, Severity};
use rustix::event::{PollFd, PollFlags, poll};
use serde_yaml::budget::BudgetBreach;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long what comes from a pipe may take.
const PIPE_TIME: Duration = Duration::from_secs(60);
/// Most bytes of a file.
const BYTES_MAX: u64 = 64 << 20;
/// Values of a file: texts, numbers, lists and mappings, names of fields among them. 100,000 backends are 900,000 of them.
pub(crate) const VALUES_MAX: usize = 3_000_000;
/// Lists and mappings in each other.
pub(crate) const DEPTH_MAX: usize = 32;
/// Values that aliases stand for, over the whole file: ten thousand services may have a hundred of one in common.
const ALIASED_MAX: usize = 1_000_000;
/// Findings that are told; the others are counted.
const FINDINGS_MAX: usize = 1000;

/// What to do about a file that is too large.
const SPLIT: &str = "split the file: give some of the services to proxies of their own";

/// What the YAML crate is told.
pub(crate) fn options() -> serde_yaml::Options {
    options_with(VALUES_MAX, ALIASED_MAX)
}

fn options_with(values_max: usize, aliased_max: usize) -> serde_yaml::Options {
    serde_yaml::options! {
        // YAML 1.2's booleans: a backend may be called `n`, and `off` is a word.
        strict_booleans: true,
        budget: serde_yaml::budget! {
            max_nodes: values_max,
            // A list or a mapping has an end too.
            max_events: 2 * values_max,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_total_scalar_bytes: BYTES_MAX as usize,
            // Each of these is a value, and what it stands for is limited: one anchor may serve all services.
            max_aliases: values_max,
            max_anchors: values_max,
            max_merge_keys: values_max,
            max_recorded_anchor_events: aliased_max,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: aliased_max },
    }
}

/// What a file is too large in, and what to do about it; `None`: it is wrong in some other way.
pub(crate) fn breached(error: &serde_yaml::Error) -> Option<(String, &'static str)> {
    match error.without_snippet() {
        serde_yaml::Error::Budget { breach, .. } => Some(match breach {
            BudgetBreach::Nodes { .. }
            | BudgetBreach::Events { .. }
            | BudgetBreach::Aliases { .. }
            | BudgetBreach::Anchors { .. }
            | BudgetBreach::MergeKeys { .. } => (format!("the file has more than {VALUES_MAX} values"), SPLIT),

            BudgetBreach::ScalarBytes { .. } => (format!("the file has more than {BYTES_MAX} bytes of text"), SPLIT),
            BudgetBreach::Depth { .. } => (
                format!("more than {DEPTH_MAX} lists and mappings in each other"),
                "nothing of a configuration is so deep",
            ),
            other => (format!("the file is too large: {other:?}"), SPLIT),
        }),
        // What its scanner and its aliases run into comes wrapped, as a text.
        other => {
            let said = other.to_string();
            let is = |what: &str| said.contains(what);
            if is("recursion limit exceeded") {
                Some((
                    format!("more than {DEPTH_MAX} lists and mappings in each other"),
                    "nothing of a configuration is so deep",
                ))
            } else if is("alias replay limit exceeded") || is("RecordedAnchor") {
                Some((
                    format!("aliases stand for more than {ALIASED_MAX} values"),
                    "write out what they stand for, or have fewer of them",
                ))
            } else {
                None
            }
        }
    }
}

/// The content of a file, never more than a configuration may have: one without an end is an error like any other.
///
/// # Errors
/// It cannot be read, or is too large ([`ErrorKind::FileTooLarge`]), or is a pipe: whoever waits for what comes from one waits for as long as
/// others please.
pub fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let pipe = || std::io::Error::new(ErrorKind::InvalidInput, "it is a pipe, not a file");
    if is_pipe(path)? {
        return Err(pipe());
    }
    let too_large = || std::io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {BYTES_MAX} bytes"));
    // It may have become one since: then nobody waits for who writes.
    let file = open(path)?;
    let metadata = file.metadata()?;
    if metadata.file_type().is_fifo() {
        return Err(pipe());
    }
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty())?;
    // A file that says how long it is costs nothing; devices say 0.
    if metadata.len() > BYTES_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

/// Opens a file without waiting for whoever is to write into it.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn is_pipe(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::metadata(path)?.file_type().is_fifo())
}

/// What comes from a pipe, to its end: `ringway check <(ssh host cat ringway.yaml)`. Not for longer than `time`.
fn read_pipe(path: &Path, time: Duration) -> std::io::Result<Vec<u8>> {
    let mut pipe = open(path)?;
    let (mut bytes, mut part, until) = (Vec::new(), vec![0; 64 << 10], Instant::now() + time);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec::try_from(left).map_err(std::io::Error::other)?;
        let mut ready = [PollFd::new(&pipe, PollFlags::IN)];
        // As long as nobody has opened it to write, there is no end of it either.
        match poll(&mut ready, Some(&left)) {
            Ok(0) => {
                return Err(std::io::Error::new(
                    ErrorKind::TimedOut,
                    format!("it is a pipe, and its end has not come within {time:?}"),
                ));
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match pipe.read(&mut part) {
            Ok(0) => return Ok(bytes),
            Ok(count) if bytes.len() + count > BYTES_MAX as usize => {
                return Err(std::io::Error::new(
                    ErrorKind::FileTooLarge,
                    format!("it has more than {BYTES_MAX} bytes"),
                ));
            }
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a configuration may come from a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pipes {
    /// It is read once: whoever has begun the command waits.
    Read,
    /// It is read again and again: a pipe says nothing more, and a change would wait for it.
    Refused,
}

/// Reads a configuration's file.
///
/// # Errors
/// One finding, without the file's name.
pub(crate) fn read(path: &Path, pipes: Pipes) -> Result<String, Box<Diagnostic>> {
    let refuse = |code, message: String, help: String| {
        Box::new(Diagnostic::new(Severity::Error, code, Place::default(), message, Some(help)))
    };
    let bytes = match is_pipe(path) {
        Ok(true) if pipes == Pipes::Read => read_pipe(path, PIPE_TIME),
        Ok(_) => read_bytes(path),
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => refuse("too_large", format!("the file is too large: {error}"), SPLIT.into()),
        ErrorKind::InvalidInput => refuse(
            "unreadable_file",
            format!("cannot read the file: {error}"),
            "what is read again on a reload has to be a file; `check` and the start of `run` read pipes".into(),
        ),
        _ => {
            refuse("unreadable_file", format!("cannot read the file: {error}"), "check its path and permissions".into())
        }
    })?;
    String::from_utf8(bytes).map_err(|error| not_utf8(error.as_bytes(), error.utf8_error().valid_up_to()))
}

/// What a file of bytes is that are no text, and where the first of them stands.
fn not_utf8(bytes: &[u8], valid: usize) -> Box<Diagnostic> {
    let (message, help) = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ("the file is in UTF-16".to_owned(), "save it as UTF-8"),
        [0x1f, 0x8b, ..] => ("the file is compressed with gzip".to_owned(), "unpack it: `gzip -d`"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("the file is compressed with zstd".to_owned(), "unpack it: `zstd -d`"),
        _ => (
            format!("the file is not UTF-8: the byte 0x{:02x} is no character", bytes[valid]),
            "save it as UTF-8 (a letter of Latin-1, perhaps?)",
        ),
    };
    // What is packed has no lines.
    let valid = if help.starts_with("unpack") { 0 } else { valid };
    let line_begin = bytes[..valid].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let place = Place {
        line: bytes[..line_begin].iter().filter(|&&byte| byte == b'\n').count() + 1,
        column: String::from_utf8_lossy(&bytes[line_begin..valid]).chars().count() + 1,
        width: 1,
        text: 0,
    };
    Box::new(Diagnostic::new(Severity::Error, "not_utf8", place, message, Some(help.to_owned())))
}

/// Leaves the first findings, errors before warnings, and says how many more there are.
pub(crate) fn cut(list: &mut Vec<Diagnostic>) {
    let Some(more) = list.len().checked_sub(FINDINGS_MAX).filter(|more| *more > 0) else { return };
    // Sorting is stable: the order of the file stays among each.
    list.sort_by_key(|finding| finding.severity == Severity::Warning);
    let severity = list[FINDINGS_MAX].severity;
    list.truncate(FINDINGS_MAX);
    let message = format!("{more} more findings are not shown");
    let help = "mend these first".to_owned();
    list.push(Diagnostic::new(severity, "more_findings", Place::default(), message, Some(help)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::load_str;
    use serde::de::IgnoredAny;
    use serde_yaml::from_str_with_options;

    fn refused(text: &str) -> Diagnostic {
        load_str("f.yaml", text, &|_| None).unwrap_err().0.remove(0)
    }

    #[test]
    fn pipes_are_read_as_configurations_alone_and_nobody_is_waited_for_for_ever() {
        let directory = std::env::temp_dir().join(format!("ringway-pipes-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let pipe = directory.join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert_eq!(read_bytes(&pipe).unwrap_err().to_string(), "it is a pipe, not a file");
        // Nobody writes.
        let error = read_pipe(&pipe, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        // Somebody does, little by little.
        let (held, text) =
            (std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap(), "a: 1\n".repeat(50_000));
        let sent = text.clone();
        let writing = std::thread::spawn(move || {
            use std::io::Write;
            let mut held = held;
            held.write_all(sent.as_bytes()).unwrap();
        });
        assert_eq!(read(&pipe, Pipes::Read).unwrap(), text);
        writing.join().unwrap();
        // What is followed is no pipe, whoever holds it open.
        let held = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let fleet = std::sync::Arc::default();
        let refused = [
            crate::load_file_again(&pipe).map(drop),
            crate::load_file_with(&pipe, &crate::FleetConfig::default()).map(drop),
            crate::Joiner::default().load_file(&pipe, &fleet).map(drop),
            crate::read_backends(&pipe).map(drop),
        ];
        for refused in refused {
            let found = refused.unwrap_err().0.remove(0);
            assert!(found.code == "unreadable_file" && found.message.contains("it is a pipe"), "{found}");
        }
        drop(held);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn bytes_that_are_no_text_are_told_with_their_place_and_what_they_seem_to_be() {
        let found = |bytes: &[u8]| not_utf8(bytes, std::str::from_utf8(bytes).unwrap_err().valid_up_to());
        for (bytes, place, message) in [
            (&b"a: 1\nb: \xc3\xa9\xe9x\n"[..], (2, 5), "0xe9"),
            (b"\xe9", (1, 1), "0xe9"),
            (b"a\n\xc3", (2, 1), "0xc3"),
            (b"\xff\xfea\0", (1, 1), "UTF-16"),
            (b"\x1f\x8b\x08", (1, 1), "gzip"),
            (b"\x28\xb5\x2f\xfd", (1, 1), "zstd"),
        ] {
            let found = found(bytes);
            assert_eq!((found.line, found.column), place, "{found}");
            assert!(found.message.contains(message) && found.help.is_some(), "{found}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_with_the_limit_and_its_place() {
        let many = |values: usize| {
            let text = format!("[{}]", "1,".repeat(values));
            from_str_with_options::<IgnoredAny>(&text, options_with(100, 100)).err()
        };
        assert!(many(99).is_none());
        let (message, _) = breached(&many(100).unwrap()).unwrap();
        assert!(message.contains("3000000 values"), "{message}");
        for open in ["[", "{ a: ", "- "] {
            let found = refused(&format!("listeners: 1\nservices:\n  {}", open.repeat(10 * DEPTH_MAX)));
            assert_eq!(found.code, "too_large", "{open:?}: {found}");
            assert!(found.message.contains("more than 32") && found.line == 3, "{found}");
        }
        let bomb: String =
            (1..9).map(|at| format!("a{at}: &a{at} [{}]\n", format!("*a{},", at - 1).repeat(9))).collect();
        let bomb = format!("a0: &a0 [x,x]\n{bomb}");
        let error = from_str_with_options::<IgnoredAny>(&bomb, options_with(10_000, 1000)).err().unwrap();
        let (message, _) = breached(&error).unwrap_or_else(|| panic!("{error}"));
        assert!(message.contains("aliases stand for more than 1000000 values"), "{message}");
    }

    #[test]
    fn one_anchor_serves_as_many_services_as_there_are() {
        let first = "{ name: s0, <<: &d { slow_start: { window: 5s }, health: &h { tcp: {} } }, backends: [ { id: a, address: \"10.0.0.1:80\" } ] }";
        let service = |at: usize| {
            let address = format!("10.1.{}.{}:80", at / 256, at % 256);
            format!("  - {{ name: s{at}, <<: *d, backends: [ {{ id: a, address: \"{address}\" }} ] }}\n")
        };
        let others: String = (1..12_000).map(service).collect();
        let text = format!(
            "listeners: [ {{ name: w, address: \"127.0.0.1:0\", service: s0 }} ]\nservices:\n  - {first}\n{others}"
        );
        let loaded = load_str("f.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{}", error.0[0]));
        assert!(loaded.config.services.len() == 12_000 && loaded.config.services[11_999].health.is_some());
    }

    #[test]
    fn a_file_without_an_end_is_refused() {
        let found = crate::load_file(Path::new("/dev/zero")).unwrap_err().0.remove(0);
        assert_eq!(found.code, "too_large");
        assert!(found.to_string().contains("/dev/zero") && found.to_string().contains("67108864 bytes"), "{found}");
    }

    #[test]
    fn findings_beyond_the_first_thousand_are_counted() {
        let backends: String = (0..3000).map(|_| "      - { id: a, adress: 1 }\n").collect();
        let text = format!("listeners: []\nservices:\n  - name: s\n    backends:\n{backends}");
        let found = load_str("f.yaml", &text, &|_| None).unwrap_err().0;
        assert_eq!(found.len(), FINDINGS_MAX + 1);
        assert_eq!(found.last().unwrap().code, "more_findings");
        assert!(found[..FINDINGS_MAX].iter().all(|finding| finding.severity == Severity::Error && finding.line > 0));
    }

    #[test]
    fn more_values_are_read_than_the_crate_lets_by_itself() {
        let service = |name: usize| {
            let backends: String = (0..1000)
                .map(|at| format!("      - {{ id: b{at}, address: \"10.{name}.{}.{}:80\" }}\n", at / 256, at % 256))
                .collect();
            format!("  - name: s{name}\n    backends:\n{backends}")
        };
        let services: String = (0..30).map(service).collect();
        let text =
            format!("listeners: [ {{ name: w, address: \"127.0.0.1:0\", service: s0 }} ]\nservices:\n{services}");
        let loaded = load_str("f.yaml", &text, &|_| None).unwrap();
        assert_eq!(loaded.config.services.iter().map(|service| service.backends.len()).sum::<usize>(), 30_000);
    }
}
