//! The UDP socket below QUIC: quinn-udp with sends and receive buffers for large datagrams.
//!
//! quinn sends ten datagrams with one call whatever their size, and asks for receive buffers as if
//! a batch of datagrams could be larger than 64 KiB; above some 6 KiB a datagram the first fails
//! and the second takes over 100 MiB. Here a send is cut to what the kernel takes, and a buffer
//! holds what the kernel gives.
//!
//! Linux reports a UDP socket as writable for every datagram that has left it, and epoll passes each
//! report on: a task that always waits for writability is woken by its own sends. This socket waits
//! for it only after a send that found the buffer full.

use std::io::{self, IoSliceMut};
use std::net::{self, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::udp::writable::WriteReadiness;

mod writable;

/// The largest payload of one UDP send on IPv6 and IPv4, many datagrams (GSO) or a single one.
pub(crate) const MAX_SEND: usize = 65_487;

/// Whether a read that returns less than asked for means that nothing is left: with epoll it does,
/// because a later datagram is a new edge.
const SHORT_READ_DRAINS: bool = cfg!(target_os = "linux");

/// Failed reads in a row before other tasks run: each is an ICMP error about one of many peers, or a
/// lack of resources that persists.
const ERRORS_IN_A_ROW: usize = 16;

/// Bytes by which a repeated send is recognized: no two begin with the same ciphertext.
const MARK: usize = 32;

/// A UDP socket that quinn drives.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    io: AsyncFd<net::UdpSocket>,
    state: UdpSocketState,
    /// The last send found the buffer full; the next one waits until it is writable.
    full: AtomicBool,
    /// The last send of which a part has left, and the rest found the buffer full.
    partial: Mutex<Option<PartialSend>>,
}

/// A send of which only a part has left.
#[derive(Debug)]
struct PartialSend {
    destination: SocketAddr,
    length: usize,
    mark: [u8; MARK],
    /// Bytes that have left.
    sent: usize,
}

// === impl UdpSocket ===

impl UdpSocket {
    /// Takes over a bound, non-blocking socket and turns GSO, GRO and ECN on where there are any.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(socket: net::UdpSocket) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            io: watch(socket, Interest::READABLE)?,
            full: AtomicBool::new(false),
            partial: Mutex::default(),
        })
    }

    /// Sends from the byte `from` on, at most `part` bytes at a time; returns up to where it came.
    fn send_parts(
        &self,
        transmit: &Transmit<'_>,
        from: usize,
        part: usize,
    ) -> (usize, io::Result<()>) {
        let mut sent = from;
        for contents in transmit.contents[from..].chunks(part) {
            let segment_size = transmit.segment_size;
            let result = self.state.send(
                self.io.get_ref().into(),
                &Transmit {
                    destination: transmit.destination,
                    ecn: transmit.ecn,
                    contents,
                    segment_size: segment_size.filter(|segment| *segment < contents.len()),
                    src_ip: transmit.src_ip,
                },
            );
            if let Err(error) = result {
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.full.store(true, Ordering::Relaxed);
                }
                return (sent, Err(error));
            }
            sent += contents.len();
        }
        (sent, Ok(()))
    }

    /// How much of this very send has left before.
    fn resume(&self, transmit: &Transmit<'_>) -> usize {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        partial
            .take_if(|partial| partial.is(transmit))
            .map_or(0, |partial| partial.sent)
    }

    fn note_partial(&self, transmit: &Transmit<'_>, sent: usize) {
        let Some(mark) = transmit.contents.first_chunk() else {
            return;
        };
        let partial = PartialSend {
            destination: transmit.destination,
            length: transmit.contents.len(),
            mark: *mark,
            sent,
        };
        *self.partial.lock().unwrap_or_else(PoisonError::into_inner) = Some(partial);
    }
}

// === impl PartialSend ===

impl PartialSend {
    fn is(&self, transmit: &Transmit<'_>) -> bool {
        self.destination == transmit.destination
            && self.length == transmit.contents.len()
            && transmit.contents.starts_with(&self.mark)
    }
}

impl AsyncUdpSocket for UdpSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WriteReadiness::new(self))
    }

    /// Sends in parts that the kernel takes. When a part finds no room the caller sends all again,
    /// and what has left already is skipped, unless another send was interrupted meanwhile: then it
    /// leaves twice, and QUIC drops it.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let part = transmit
            .segment_size
            .map_or(MAX_SEND, |segment| (MAX_SEND / segment).max(1) * segment);
        if transmit.contents.len() <= part {
            return self.send_parts(transmit, 0, part).1;
        }
        let before = self.resume(transmit);
        let (sent, result) = self.send_parts(transmit, before, part);
        if result.is_err() && sent > 0 {
            self.note_partial(transmit, sent);
        }
        result
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..ERRORS_IN_A_ROW {
            let mut readable = ready!(self.io.poll_read_ready(cx))?;
            let receive = |socket: &AsyncFd<net::UdpSocket>| {
                self.state.recv(socket.get_ref().into(), buffers, meta)
            };
            // Other errors are gone once told.
            if let Ok(Ok(received)) = readable.try_io(receive) {
                if SHORT_READ_DRAINS && received < buffers.len() {
                    readable.clear_ready();
                }
                return Poll::Ready(Ok(received));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// One, as the datagrams that the kernel puts together (GRO) fill 64 KiB at most, and the
    /// endpoint takes single datagrams of that size.
    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Has the runtime tell when the socket is ready for `interest`, and for nothing else.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for types whose descriptor may change; a socket's does not"
)]
fn watch(socket: net::UdpSocket, interest: Interest) -> io::Result<AsyncFd<net::UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use quinn::udp::BATCH_SIZE;
    use socket2::SockRef;
    use tokio::time::timeout;

    use super::*;
    use crate::udp::writable::Wait;

    const LIMIT: Duration = Duration::from_secs(10);

    fn socket() -> Arc<UdpSocket> {
        let socket = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        SockRef::from(&socket)
            .set_recv_buffer_size(1024 * 1024)
            .unwrap();
        socket.set_nonblocking(true).unwrap();
        Arc::new(UdpSocket::new(socket).unwrap())
    }

    fn transmit<'a>(
        to: &UdpSocket,
        contents: &'a [u8],
        segment_size: Option<usize>,
    ) -> Transmit<'a> {
        let destination = to.local_addr().unwrap();
        Transmit {
            destination,
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        }
    }

    /// Sends as quinn does.
    async fn send(from: &Arc<UdpSocket>, transmit: &Transmit<'_>) {
        let mut writable = Arc::clone(from).create_io_poller();
        poll_fn(|cx| writable.as_mut().poll_writable(cx))
            .await
            .unwrap();
        from.try_send(transmit).unwrap();
    }

    /// What one read brings, datagram by datagram.
    async fn receive(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut memory = vec![vec![0; 1 << 16]; BATCH_SIZE];
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let received = poll_fn(|cx| {
            let buffers = memory.iter_mut().map(|buffer| IoSliceMut::new(buffer));
            let mut buffers: Vec<_> = buffers.collect();
            socket.poll_recv(cx, &mut buffers, &mut meta)
        });
        let count = timeout(LIMIT, received).await.unwrap().unwrap();
        let batches = memory.iter().zip(&meta).take(count);
        batches
            .flat_map(|(buffer, meta)| buffer[..meta.len].chunks(meta.stride))
            .map(<[u8]>::to_vec)
            .collect()
    }

    #[tokio::test]
    async fn datagrams_of_every_size_arrive_as_they_were_sent() {
        let (from, to) = (socket(), socket());
        for size in [1_200, 1_472, 8_972, 16_368, 32_743, MAX_SEND] {
            // The last one may be shorter.
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(size * 5 / 2).collect();
            let expected: Vec<_> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            send(&from, &transmit(&to, &bytes, Some(size))).await;
            let mut arrived = Vec::new();
            while arrived.len() < expected.len() {
                arrived.append(&mut receive(&to).await);
            }
            assert!(arrived == expected, "{size} bytes a datagram");
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_read_empty_tells_of_what_comes_later() {
        let (from, to) = (socket(), socket());
        for number in 0..100_u8 {
            // Every other time the read waits for the datagram.
            let arrived = if number % 2 == 0 {
                send(&from, &transmit(&to, &[number], None)).await;
                receive(&to).await
            } else {
                let datagram = [number];
                let transmit = transmit(&to, &datagram, None);
                tokio::join!(receive(&to), send(&from, &transmit)).0
            };
            assert_eq!(arrived, [[number]]);
        }
    }

    #[tokio::test]
    async fn a_send_that_finds_the_buffer_full_waits_until_it_is_writable() {
        let (from, to) = (socket(), socket());
        let mut one = Arc::clone(&from).create_io_poller();
        let mut other = Arc::clone(&from).create_io_poller();
        for _ in 0..3 {
            // As a send that found no room leaves it.
            from.full.store(true, Ordering::Relaxed);
            let both = async {
                tokio::join!(
                    poll_fn(|cx| one.as_mut().poll_writable(cx)),
                    poll_fn(|cx| other.as_mut().poll_writable(cx)),
                )
            };
            let (one, other) = timeout(LIMIT, both).await.unwrap();
            one.unwrap();
            other.unwrap();
            from.try_send(&transmit(&to, b"room", None)).unwrap();
            assert_eq!(receive(&to).await, [b"room"]);
        }
    }

    #[tokio::test]
    async fn what_has_left_of_an_interrupted_send_does_not_leave_twice() {
        const SEGMENT: usize = 30_000;
        let (from, to) = (socket(), socket());
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(3 * SEGMENT).collect();
        let other: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        // As it is left when the second of two parts finds no room.
        from.note_partial(&transmit(&to, &bytes, Some(SEGMENT)), 2 * SEGMENT);
        for (bytes, arrives) in [
            (&other, &other[..]),
            (&bytes, &bytes[2 * SEGMENT..]),
            (&bytes, &bytes[..]),
        ] {
            send(&from, &transmit(&to, bytes, Some(SEGMENT))).await;
            let mut arrived = Vec::new();
            while arrived.len() < arrives.len() {
                arrived.append(&mut receive(&to).await.concat());
            }
            assert!(arrived == arrives);
        }
    }

    #[tokio::test]
    async fn a_process_out_of_descriptors_tries_again() {
        let socket = socket();
        socket.full.store(true, Ordering::Relaxed);
        let mut writable = WriteReadiness {
            socket: Arc::clone(&socket),
            wait: Some(Wait::retry()),
        };
        let again = poll_fn(|cx| Pin::new(&mut writable).poll_writable(cx));
        timeout(LIMIT, again).await.unwrap().unwrap();
        assert!(!socket.full.load(Ordering::Relaxed));
    }
}
