//! Links that are made and removed. They need root, `ip` and `/dev/net/tun`:
//! `cargo test -p towline-wan -- --ignored`; how exact they are is measured by `--check`.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::Result;
use towline_wan::link::{Link, Way};
use towline_wan::wan::{Side, Wan};

const LIMIT: Duration = Duration::from_secs(5);

fn link() -> Link {
    let (rate, queue) = ("100Mbit".parse(), "10ms".parse());
    let (rate, queue) = (rate.expect("a rate"), queue.expect("a depth"));
    Link::symmetric(Way::new(Duration::from_millis(3), rate, queue))
}

fn bind(wan: &Wan, side: Side) -> UdpSocket {
    let socket = wan.namespace(side).run(|| -> Result<UdpSocket> {
        let socket = UdpSocket::bind((side.address(), 0))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(socket)
    });
    socket.expect("a socket inside")
}

#[test]
#[ignore = "needs root, ip and /dev/net/tun"]
fn packets_cross_both_ways_and_are_counted() {
    let wan = Wan::up(&link()).unwrap();
    let (near, far) = (bind(&wan, Side::Near), bind(&wan, Side::Far));
    let mut buffer = [0; 2000];
    near.send_to(&[1; 1472], far.local_addr().unwrap()).unwrap();
    let (length, from) = far.recv_from(&mut buffer).unwrap();
    assert_eq!((length, from), (1472, near.local_addr().unwrap()));
    far.send_to(&[2; 10], from).unwrap();
    assert_eq!(near.recv(&mut buffer).unwrap(), 10);

    let [there, back] = wan.counters();
    assert_eq!((there.packets, there.bytes), (1, 1500));
    assert_eq!((back.packets, back.bytes), (1, 38));
    wan.down().unwrap();
}

#[test]
#[ignore = "needs root, ip and /dev/net/tun"]
fn two_links_live_side_by_side_and_nothing_stays() {
    let wans = [Wan::up(&link()).unwrap(), Wan::up(&link()).unwrap()];
    let name = |wan: &Wan, side| wan.namespace(side).name().to_owned();
    let names: Vec<String> = wans
        .iter()
        .flat_map(|wan| Side::BOTH.map(|side| name(wan, side)))
        .collect();
    let there = |name: &String| fs::exists(format!("/run/netns/{name}")).unwrap();
    assert!(names.iter().all(there), "{names:?}");

    // A program that would run for ever inside is ended with its namespace.
    let mut inside = wans[0]
        .command(Side::Far, "sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    drop(wans);
    assert!(!inside.wait().unwrap().success());
    assert!(!names.iter().any(there), "{names:?}");
}

#[test]
#[ignore = "needs root, ip and /dev/net/tun"]
fn each_side_has_the_congestion_control_that_was_asked_for() {
    let wan = Wan::up(&link()).unwrap();
    let read = || {
        Ok(fs::read_to_string(
            "/proc/sys/net/ipv4/tcp_congestion_control",
        )?)
    };
    assert_eq!(wan.namespace(Side::Near).run(read).unwrap().trim(), "cubic");
    wan.set_tcp_congestion("reno").unwrap();
    assert_eq!(wan.namespace(Side::Far).run(read).unwrap().trim(), "reno");
    assert!(wan.set_tcp_congestion("no-such").is_err());
}

#[test]
#[ignore = "needs root, ip and /dev/net/tun"]
fn the_far_side_reaches_the_near_loopback_when_it_is_shared() {
    let wan = Wan::up(&link()).unwrap();
    wan.share_loopback().unwrap();
    let loopback = || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        anyhow::Ok(socket)
    };
    let near = wan.namespace(Side::Near).run(loopback).unwrap();
    let far = bind(&wan, Side::Far);
    far.send_to(b"there", near.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 10];
    let (length, from) = near.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from),
        (&b"there"[..], far.local_addr().unwrap())
    );
    near.send_to(b"back", from).unwrap();
    let (length, from) = far.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from),
        (&b"back"[..], near.local_addr().unwrap())
    );
    assert!(
        wan.namespace(Side::Far).run(loopback).is_ok(),
        "listening is possible"
    );
}
