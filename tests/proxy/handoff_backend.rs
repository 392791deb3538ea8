//! The example of a backend that obeys the header of a hand-off, as it stands in docs/: it is run, and told by hand who had a key.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/handoff-backend.py");

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(own: SocketAddr, all: &str) -> Running {
    let mut command = Command::new("python3");
    command.args([EXAMPLE, &own.to_string(), all]).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    wait_for("the example to listen", || std::net::TcpStream::connect(own).ok().map(drop));
    running
}

/// What curl gets of that path, and the status.
fn curl(address: SocketAddr, path: &str, headers: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["-s", "--max-time", "20", "--path-as-is", "-w", "\n%{http_code}", "--noproxy", "*"]);
    for header in headers {
        command.args(["-H", header]);
    }
    let said = command.args(["--request-target", path]).arg(format!("http://{address}/")).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    (body.trim().to_owned(), status.to_owned())
}

#[test]
fn the_example_of_a_backend_asks_the_previous_owner_once_and_nobody_who_is_not_in_its_list() {
    if require("python3").is_none() || require("curl").is_none() {
        return;
    }
    let [one, other, gone] = [free_address(), free_address(), free_address()];
    let all = format!("{one},{other},{gone}");
    let _one = start(one, &all);
    let _other = start(other, &all);
    let by = |path: &str, who: SocketAddr| (format!("{path} out of the source of truth, by {who}"), "200".to_owned());
    let previous = |who: SocketAddr| format!("x-ringway-previous-owner: one {who}");
    assert_eq!(curl(one, "/a", &[]), by("/a", one));
    // It has it of the one, and keeps it.
    assert_eq!(curl(other, "/a", &[&previous(one)]), by("/a", one));
    assert_eq!(curl(other, "/a", &[]), by("/a", one));
    // Whom the one has not served, or who is gone, costs one fetch; and the one has not fetched it for that.
    assert_eq!(curl(other, "/b", &[&previous(one)]), by("/b", other));
    assert_eq!(curl(one, "/b", &["x-cached-only: 1"]).1, "404");
    assert_eq!(curl(other, "/c", &[&previous(gone)]), by("/c", other));
    // Strangers are not asked: by no address, and by no path that would make another address of it.
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let address = stranger.local_addr().unwrap();
    assert_eq!(curl(other, "/d", &[&previous(address)]), by("/d", other));
    for header in
        ["x-ringway-previous-owner;", "x-ringway-previous-owner: one", "x-ringway-previous-owner: one nonsense"]
    {
        let path = format!("/{}", header.len());
        assert_eq!(curl(other, &path, &[header]), by(&path, other));
    }
    let path = format!("@{address}/e");
    assert_eq!(curl(other, &path, &[&previous(one)]), by(&path, other));
    assert!(stranger.accept().is_err(), "a stranger was asked");
}
