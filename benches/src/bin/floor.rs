//! The floor: bytes relayed unread between client and backend by plain epoll on one thread. No proxy that reads what it
//! passes on can cost less on the same machine; the comparison measures it beside the proxies.
//!
//! `floor LISTEN BACKEND...`
#![allow(clippy::expect_used, reason = "a measuring tool: what goes wrong ends it")]

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

const LISTENER: u64 = u64::MAX;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let listener = TcpListener::bind(arguments.next().expect("where to listen")).expect("bind");
    listener.set_nonblocking(true).expect("nonblocking");
    let backends: Vec<String> = arguments.collect();
    let epoll = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("watch");
    // Client and backend of a pair lie side by side: the other side of `i` is `i ^ 1`.
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Vec::with_capacity(512);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None).expect("wait");
        for event in &events {
            let index = event.data.u64();
            if index == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let backend = TcpStream::connect(&backends[streams.len() / 2 % backends.len()]).expect("connect");
                    for stream in [client, backend] {
                        stream.set_nonblocking(true).expect("nonblocking");
                        stream.set_nodelay(true).expect("nodelay");
                        let data = EventData::new_u64(streams.len() as u64);
                        epoll::add(&epoll, &stream, data, EventFlags::IN | EventFlags::ET).expect("watch");
                        streams.push(Some(stream));
                    }
                }
                continue;
            }
            let index = index as usize;
            let count = match streams[index].as_mut().map(|stream| stream.read(&mut buffer)) {
                Some(Ok(count)) => count,
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => continue,
                _ => 0,
            };
            let written =
                count > 0 && streams[index ^ 1].as_mut().is_some_and(|other| other.write_all(&buffer[..count]).is_ok());
            if !written {
                (streams[index], streams[index ^ 1]) = (None, None);
            }
        }
    }
}
