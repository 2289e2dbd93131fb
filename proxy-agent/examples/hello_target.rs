//! A private HTTP target for `make demo`: answers every request with one fixed page.
//!
//! The page is the first line of standard input. The address it listens on is printed, and the
//! target ends when its input is closed, so that it cannot outlive the script that started it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Long enough for a request on loopback; a client that sends nothing holds up the next one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    let mut page = String::new();
    io::stdin().lock().read_line(&mut page)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    writeln!(io::stdout().lock(), "{}", listener.local_addr()?)?;

    thread::spawn(move || {
        for client in listener.incoming() {
            if let Err(error) = client.and_then(|client| answer(client, &page)) {
                drop(writeln!(io::stderr().lock(), "hello_target: {error}"));
            }
        }
    });
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

/// Reads one request head and sends the page.
fn answer(mut client: TcpStream, page: &str) -> io::Result<()> {
    client.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let head = BufReader::new((&client).take(16 * 1024));
    for line in head.lines() {
        if line?.is_empty() {
            break;
        }
    }
    write!(
        client,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{page}",
        page.len(),
    )
}
