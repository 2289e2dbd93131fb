//! What is sent over a link to see what it does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::units::Rate;
use crate::wan::{Side, Wan};

/// Bytes of IP and UDP headers, which the link's rate counts.
const HEADERS: u16 = 28;

/// Bytes of a blast's packets with their headers: as large as the link takes them.
const PACKET: u16 = 1500;

/// How often a paced sender catches up: short bursts, so that no socket's buffer overflows.
const PACE: Duration = Duration::from_micros(500);

/// How long a receiver waits for more: far beyond delay and queue.
const SILENCE: Duration = Duration::from_millis(700);

/// What is before this is not counted: queues fill.
const WARM_UP: Duration = Duration::from_millis(400);

/// UDP packets at an even rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blast {
    packets_per_second: f64,
}

/// What came of a blast.
#[derive(Debug)]
pub(super) struct Landed {
    /// With headers, after the warm-up.
    pub(super) bits_per_second: f64,
    /// 99 of 100 packets were not under way for longer.
    pub(super) under_way: Duration,
    pub(super) sent: u32,
    pub(super) received: u32,
}

// === impl Blast ===

impl Blast {
    /// Packets at `share` of the rate.
    pub(super) fn new(rate: Rate, share: f64) -> Self {
        let bits = super::rate_of(rate) * share;
        Self {
            packets_per_second: bits / 8.0 / f64::from(PACKET),
        }
    }

    /// Sends from near to far for `time`.
    pub(super) fn run(self, wan: &Wan, time: Duration) -> Result<Landed> {
        let start = Instant::now();
        let receiver = bind(wan, Side::Far)?;
        let to = receiver.local_addr()?;
        let sender = bind(wan, Side::Near)?;
        thread::scope(|scope| {
            let landed = scope.spawn(|| land(&receiver, start));
            let sent = self.send(&sender, to, start, time)?;
            let mut landed = join(landed)??;
            landed.sent = sent;
            Ok(landed)
        })
    }

    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few hundred thousand packets"
    )]
    fn send(
        self,
        socket: &UdpSocket,
        to: SocketAddr,
        start: Instant,
        time: Duration,
    ) -> Result<u32> {
        let mut packet = [0x2e; PACKET as usize - HEADERS as usize];
        let mut sent = 0;
        while start.elapsed() < time {
            let due = (start.elapsed().as_secs_f64() * self.packets_per_second) as u32;
            while sent < due {
                let now = u64::try_from(start.elapsed().as_nanos())?;
                packet[..8].copy_from_slice(&now.to_be_bytes());
                socket.send_to(&packet, to)?;
                sent += 1;
            }
            thread::sleep(PACE);
        }
        Ok(sent)
    }
}

/// Takes packets until there are no more.
fn land(socket: &UdpSocket, start: Instant) -> Result<Landed> {
    socket.set_read_timeout(Some(SILENCE))?;
    let (mut received, mut counted) = (0_u32, 0_u32);
    let (mut first, mut last) = (None, Duration::ZERO);
    let mut times = Vec::new();
    let mut packet = [0; PACKET as usize];
    loop {
        let length = match socket.recv(&mut packet) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        };
        ensure!(
            length == usize::from(PACKET - HEADERS),
            "a packet of {length} bytes"
        );
        let now = start.elapsed();
        received += 1;
        let (stamp, _) = packet.split_first_chunk().context("a stamp")?;
        times.push(now.saturating_sub(Duration::from_nanos(u64::from_be_bytes(*stamp))));
        if now >= WARM_UP {
            counted += u32::from(first.is_some());
            first.get_or_insert(now);
            last = now;
        }
    }
    times.sort_unstable();
    let seconds = last.saturating_sub(first.unwrap_or_default()).as_secs_f64();
    Ok(Landed {
        bits_per_second: f64::from(counted) * f64::from(PACKET) * 8.0 / seconds,
        under_way: times
            .get(times.len() * 99 / 100)
            .copied()
            .context("no packet arrived")?,
        sent: 0,
        received,
    })
}

/// Sorted times that small packets took there and back, one after the other.
pub(super) fn round_trips(wan: &Wan, count: u32) -> Result<Vec<Duration>> {
    let (near, far) = (bind(wan, Side::Near)?, bind(wan, Side::Far)?);
    near.connect(far.local_addr()?)?;
    for socket in [&near, &far] {
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    }
    thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            let mut packet = [0; 64];
            for _ in 0..count {
                let (length, from) = far.recv_from(&mut packet)?;
                far.send_to(&packet[..length], from)?;
            }
            Ok(())
        });
        let mut times = Vec::new();
        let mut packet = [7; 64];
        for _ in 0..count {
            let start = Instant::now();
            near.send(&packet)?;
            near.recv(&mut packet)?;
            times.push(start.elapsed());
        }
        join(echo)??;
        times.sort_unstable();
        Ok(times)
    })
}

/// Payload bits per second of one connection of the kernel's, far to near, after the warm-up.
pub(super) fn tcp(wan: &Wan, time: Duration) -> Result<f64> {
    let address = SocketAddr::new(Side::Far.address(), 0);
    let listen = || Ok(TcpListener::bind(address)?);
    let listener = wan.namespace(Side::Far).run(listen)?;
    let address = listener.local_addr()?;
    let connect = || Ok(TcpStream::connect_timeout(&address, SILENCE)?);
    let mut client = wan.namespace(Side::Near).run(connect)?;
    let (mut server, _) = listener.accept()?;
    thread::scope(|scope| {
        let source = scope.spawn(move || {
            let bytes = [0x5a; 64 * 1024];
            while server.write_all(&bytes).is_ok() {}
        });
        let mut buffer = vec![0; 256 * 1024];
        let start = Instant::now();
        let (mut bytes, mut counted_from) = (0, None);
        while start.elapsed() < time + WARM_UP {
            let length = client.read(&mut buffer)?;
            if start.elapsed() >= WARM_UP {
                let since = *counted_from.get_or_insert_with(Instant::now);
                bytes += if since.elapsed().is_zero() { 0 } else { length };
            }
        }
        let seconds = counted_from
            .context("nothing arrived")?
            .elapsed()
            .as_secs_f64();
        client.shutdown(Shutdown::Both)?;
        drop(client);
        join(source)?;
        Ok(f64::from(u32::try_from(bytes)?) * 8.0 / seconds)
    })
}

fn bind(wan: &Wan, side: Side) -> Result<UdpSocket> {
    wan.namespace(side)
        .run(|| Ok(UdpSocket::bind((side.address(), 0))?))
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))
}
