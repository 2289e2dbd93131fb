//! Clients over a Unix socket: a stale one is replaced, a live one is not.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tracing::warn;

use crate::listener::{Accepted, Address, ListenerError};

/// Connections that may wait to be accepted; the system's own limit may be lower.
const BACKLOG: i32 = 4_096;

/// A Unix socket that listens; its file goes with it.
#[derive(Debug)]
pub struct UnixListener {
    listener: tokio::net::UnixListener,
    path: PathBuf,
    /// Device and inode: a file that replaced this one since is left alone.
    file: (u64, u64),
}

// === impl UnixListener ===

impl UnixListener {
    /// Listens at `path`, whose file gets the permission bits `mode`.
    ///
    /// # Errors
    /// When something that must not be replaced is there, or the system refuses.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenerError> {
        make_room(path)?;
        open(path, mode).map_err(|source| failed(path, source))
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, _unnamed) = self.listener.accept().await?;
        Ok(Accepted::unix(stream))
    }
}

impl Drop for UnixListener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "removing the Unix socket failed");
        }
    }
}

/// Removes a socket that no process listens on any more.
fn make_room(path: &Path) -> Result<(), ListenerError> {
    let occupied = |why| {
        Err(ListenerError::Occupied {
            path: path.to_owned(),
            why,
        })
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path, error)),
        Ok(file) if !file.file_type().is_socket() => {
            occupied("a file that is not a socket is there")
        }
        Ok(_socket) => match StdUnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| failed(path, error))
            }
            Ok(_) => occupied("another process listens there"),
            Err(_) => occupied("a socket is there and does not say whether it is in use"),
        },
    }
}

fn open(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // No client can connect before it listens, so there is no moment with other permissions.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let listener = tokio::net::UnixListener::from_std(socket.into())?;
    let file = fs::symlink_metadata(path)?;
    Ok(UnixListener {
        listener,
        path: path.to_owned(),
        file: (file.dev(), file.ino()),
    })
}

fn failed(path: &Path, source: io::Error) -> ListenerError {
    ListenerError::Address {
        address: Address::Unix(path.to_owned()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::UnixListener;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("front.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind: it is stale");
        let listener = UnixListener::bind(&path, 0o660).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let error = UnixListener::bind(&path, 0o660).unwrap_err().to_string();
        assert!(error.ends_with("another process listens there"), "{error}");
        drop(listener);
        assert!(!path.exists(), "the file goes with the listener");
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        let error = UnixListener::bind(&path, 0o660).unwrap_err().to_string();
        assert!(
            error.ends_with("a file that is not a socket is there"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn a_successor_keeps_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("front.sock");
        let listener = UnixListener::bind(&path, 0o660).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = UnixListener::bind(&path, 0o660).unwrap();
        drop(listener);
        assert!(path.exists());
        drop(successor);
    }
}
