//! `--save`: whatever stands in the way of a file that is to be changed, nothing of it is lost, and what has come of it is said.

use crate::common::control::Said;
use crate::common::{Backend, output, path_text, read_request, response, skipped};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// As people write them: comments everywhere, and no two mappings alike.
const FILE: &str = "# ours\nlisteners: [ { name: l, address: \"127.0.0.1:1\", service: s } ] # one\nservices:\n  - name: s   # the service\n    \
                    backends:\n      # old\n      - { id: a, address: \"127.0.0.1:8\" } # first\n      - id: b\n        \
                    address: \"127.0.0.1:9\" # second\n      # end\n";
const DONE: &str = "{ \"generation\": 2, \"changes\": [ \"it is done\" ] }";

/// Somebody at the other end of `--admin`, who does this before they answer so.
fn door(status: &'static str, body: &'static str, meanwhile: impl Fn() + Send + Sync + 'static) -> Backend {
    Backend::custom(move |mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            // That the file is to be read comes after it is written.
            if !head.starts_with("POST /reload ") {
                meanwhile();
            }
            seen.lock().unwrap().push(head);
            if stream.write_all(response(status, "content-type: application/json\r\n", body).as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn command(door: &Backend, backend: &str, file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let admin = door.address.to_string();
    command.args(["backend", "drain", "s", backend, "--save", "--config"]).arg(file).args(["--admin", &admin]);
    command.stdin(Stdio::null());
    command
}

fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    Said { status: output.status, out: output.stdout, err: output.stderr }
}

fn save(door: &Backend, file: &Path) -> Said {
    said(&mut command(door, "a", file))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// How many files there are beside it, itself among them.
fn files(path: &Path) -> usize {
    std::fs::read_dir(path.parent().unwrap()).unwrap().count()
}

fn drained() -> String {
    FILE.replace("{ id: a,", "{ id: a, drain: true,")
}

fn is_root() -> bool {
    output("id", &["-u"]).stdout == b"0\n"
}

#[test]
fn a_link_leads_on_to_the_file_which_has_its_owner_its_mode_and_every_comment() {
    let directory = tempfile::tempdir().unwrap();
    let (real, link) = (directory.path().join("real/ringway.yaml"), directory.path().join("ringway.yaml"));
    std::fs::create_dir(real.parent().unwrap()).unwrap();
    std::fs::write(&real, FILE).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("real/ringway.yaml", &link).unwrap();
    if is_root() {
        chown(&real, Some(12345), Some(54321)).unwrap();
    } else {
        skipped("a file of somebody else's takes root: its mode alone is looked at");
    }
    let before = std::fs::metadata(&real).unwrap();
    let door = door("200 OK", DONE, || {});
    let done = save(&door, &link);
    assert!(done.status.success() && done.text().contains("it is done"), "{done:?}");
    assert_eq!(read(&real), drained());
    let after = std::fs::metadata(&real).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!((files(&real), files(&link)), (1, 2));
    let second = said(&mut command(&door, "b", &link));
    assert!(
        second.status.success() && read(&real).contains("drain: true\n") && read(&real).contains("# second"),
        "{}",
        read(&real)
    );
}

#[test]
fn what_cannot_be_saved_is_not_done_either() {
    if !is_root() {
        return skipped("disks that are full or read-only take root");
    }
    let directory = tempfile::tempdir().unwrap();
    let (disk, file) = (path_text(directory.path()), directory.path().join("ringway.yaml"));
    let mount = |options: &str| output("mount", &["-t", "tmpfs", "-o", options, "none", disk]);
    let done = mount("size=64k");
    if !done.status.success() {
        return skipped(&format!("no mounts here: {}", String::from_utf8_lossy(&done.stderr)));
    }
    let _mounted = Mounted(disk.to_owned());
    std::fs::write(&file, FILE).unwrap();
    let door = door("200 OK", DONE, || {});
    let refused = |says: &str| {
        let refused = save(&door, &file);
        assert!(refused.status.code() == Some(1) && refused.error().contains(says), "{refused:?}");
        assert!(refused.error().contains("ringway.yaml") && refused.out.is_empty(), "{refused:?}");
        assert_eq!((read(&file), door.requests().len()), (FILE.to_owned(), 0), "nobody has been asked for anything");
    };
    // All that is left of the disk.
    let mut filler = std::fs::File::create(directory.path().join("filler")).unwrap();
    while filler.write_all(&[b'x'; 4096]).is_ok() {}
    refused("No space left");
    assert_eq!(files(&file), 2);
    drop(filler);
    std::fs::remove_file(directory.path().join("filler")).unwrap();
    assert!(output("mount", &["-o", "remount,ro", disk]).status.success());
    refused("Read-only file system");
    assert!(output("mount", &["-o", "remount,rw", disk]).status.success());
    let done = save(&door, &file);
    assert!(done.status.success() && read(&file) == drained(), "{done:?}");
}

struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        output("umount", &["--lazy", &self.0]);
    }
}

/// What only its owner and root may give away stays with its owner, in a directory that everybody may write to.
#[test]
fn a_file_that_would_change_its_owner_is_left_as_it_is() {
    const NOBODY: u32 = 65534;
    let as_nobody = |command: &mut Command| said(command.uid(NOBODY).gid(NOBODY));
    if !is_root() || !Command::new("true").uid(NOBODY).status().is_ok_and(|status| status.success()) {
        return skipped("somebody else takes root");
    }
    // The test's own binary may stand where nobody else comes.
    let directory = tempfile::tempdir().unwrap();
    let (binary, file) = (directory.path().join("ringway"), directory.path().join("ringway.yaml"));
    std::fs::copy(env!("CARGO_BIN_EXE_ringway"), &binary).unwrap();
    std::fs::write(&file, FILE).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let door = door("200 OK", DONE, || {});
    let mut nobodys = Command::new(&binary);
    nobodys.args(command(&door, "a", &file).get_args());
    let refused = as_nobody(&mut nobodys);
    assert!(refused.status.code() == Some(1) && refused.error().contains("not permitted"), "{refused:?}");
    assert_eq!((read(&file), door.requests().len(), files(&file)), (FILE.to_owned(), 0, 2));
    chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    let done = as_nobody(&mut nobodys);
    assert!(done.status.success() && read(&file) == drained(), "{done:?}");
}

#[test]
fn what_others_write_while_the_proxy_is_asked_is_kept_and_what_is_not_saved_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ringway.yaml");
    let by = |text: &'static str| {
        let file = file.clone();
        std::fs::write(&file, FILE).unwrap();
        move || std::fs::write(&file, text).unwrap()
    };
    let appended = Box::leak(format!("{FILE}# by hand\n").into_boxed_str());
    let done = save(&door("200 OK", DONE, by(appended)), &file);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(read(&file), format!("{}# by hand\n", drained()));
    // The backend has gone from the file: it is drained in the proxy, and that is all.
    let without = Box::leak(FILE.replace("id: a,", "id: z,").into_boxed_str());
    let half = save(&door("200 OK", DONE, by(without)), &file);
    assert!(half.status.code() == Some(2) && half.text().contains("it is done"), "{half:?}");
    let error = half.error();
    assert!(
        error.contains("in force until the process ends, and is not in the file") && error.contains("\"a\""),
        "{error}"
    );
    assert_eq!(read(&file), *without);
    // Whoever is asked refuses: nothing is written.
    std::fs::write(&file, FILE).unwrap();
    let refused = save(&door("409 Conflict", "{ \"error\": \"no\" }", || {}), &file);
    assert!(refused.status.code() == Some(1) && refused.error().contains("refused: no"), "{refused:?}");
    assert_eq!((read(&file), files(&file)), (FILE.to_owned(), 1));
}

#[test]
fn operators_who_save_at_once_lose_nothing_of_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ringway.yaml");
    let ids: Vec<String> = (0..6).map(|index| format!("b{index}")).collect();
    let more: String = ids.iter().map(|id| format!("      - {{ id: {id}, address: \"127.0.0.1:9\" }}\n")).collect();
    std::fs::write(&file, format!("{FILE}{more}")).unwrap();
    let door = door("200 OK", DONE, || {});
    let running: Vec<_> =
        ids.iter().map(|id| command(&door, id, &file).stdout(Stdio::null()).spawn().unwrap()).collect();
    assert!(running.into_iter().all(|mut child| child.wait().unwrap().success()));
    let text = read(&file);
    for id in ids {
        assert!(text.contains(&format!("{{ id: {id}, drain: true,")), "{text}");
    }
    assert_eq!(files(&file), 1);
}
