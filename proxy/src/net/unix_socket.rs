//! A listening Unix socket, and its file: nobody may connect before the file has its permissions, and it goes with whoever has made it.

use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 64;

/// The file of a socket; it is removed when this is dropped, unless somebody else's is in its place by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// Binds, and replaces what is left of a process that has gone: a socket on which nobody answers.
pub(crate) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Until it listens, nobody can connect, whatever the permissions are.
    let prepared = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::symlink_metadata(path));
    let listening = prepared.and_then(|data| socket.listen(BACKLOG).map(|()| (data.dev(), data.ino())));
    match listening {
        Ok(identity) => Ok((socket.into(), SocketFile { path: path.to_owned(), identity })),
        Err(error) => {
            // It is of no use to anybody.
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let data = match std::fs::symlink_metadata(path) {
        Ok(data) => data,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !data.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        // Whoever is there may be slow to answer, or not ours to ask.
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another process answers there")),
        Err(error) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|data| (data.dev(), data.ino()) == self.identity);
        if ours {
            // Nothing is to be done about it here, and the next one replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_its_permissions_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (listener, file) = bind(&path, 0o640).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(bind(&path, 0o600).unwrap_err().kind(), ErrorKind::AddrInUse, "somebody answers");
        UnixStream::connect(&path).unwrap();
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_left_of_a_process_is_replaced_and_a_file_of_another_kind_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (stale, plain) = (directory.path().join("stale"), directory.path().join("plain"));
        drop(UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        let (_listener, file) = bind(&stale, 0o600).unwrap();
        // Somebody else's, by now.
        std::fs::remove_file(&stale).unwrap();
        let _other = UnixListener::bind(&stale).unwrap();
        drop(file);
        assert!(stale.exists());
        std::fs::write(&plain, "kept").unwrap();
        assert_eq!(bind(&plain, 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&plain).unwrap(), "kept");
        assert_eq!(bind(&directory.path().join("no/s"), 0o600).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
