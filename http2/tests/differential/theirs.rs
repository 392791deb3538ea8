//! The `h2` crate, on one thread, until it has nothing more to do.

use super::seen::{Message, Seen, frame, sorted};
use super::{ASKED, HEAD, STREAMS_MAX};
use ringway_http2::{PREFACE, Role};
use ringway_message::may_trail;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{LocalSet, spawn_local, yield_now};

pub(crate) type Messages = Rc<RefCell<BTreeMap<u32, Message>>>;

pub(crate) fn map_of(fields: &http::HeaderMap, role: Role) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for name in fields.keys().filter(|name| *name != "host") {
        let values: Vec<_> =
            fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        match name.as_str() {
            // RFC 9113, 8.2.3.
            "cookie" if role == Role::Server => list.push(("cookie".to_owned(), values.join("; "))),
            name => list.extend(values.into_iter().map(|value| (name.to_owned(), value))),
        }
    }
    sorted(list)
}

pub(crate) async fn read_body(mut body: h2::RecvStream, id: u32, messages: Messages) {
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return };
        let _ = body.flow_control().release_capacity(data.len());
        messages.borrow_mut().entry(id).or_default().data.extend_from_slice(&data);
    }
    let Ok(trailers) = body.trailers().await else { return };
    let mut messages = messages.borrow_mut();
    let message = messages.entry(id).or_default();
    if let Some(trailers) = trailers {
        message.trailers =
            map_of(&trailers, Role::Client).into_iter().filter(|(name, _)| may_trail(name.as_bytes())).collect();
    }
    message.ended = true;
}

/// Lets every task go on until none has anything to do.
pub(crate) async fn settle() {
    for _ in 0..300 {
        yield_now().await;
    }
}

/// Takes what is there, and waits for no more.
pub(crate) async fn drain(io: &mut DuplexStream) -> Vec<u8> {
    let mut output = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            biased;
            read = io.read(&mut buffer) => match read {
                Ok(count) if count > 0 => output.extend_from_slice(&buffer[..count]),
                _ => return output,
            },
            () = settle() => return output,
        }
    }
}

pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

pub(crate) fn server_of_h2(bytes: &[u8]) -> Seen {
    run(async {
        let (mut client, io) = tokio::io::duplex(1 << 20);
        let messages = Messages::default();
        let notes = Rc::clone(&messages);
        spawn_local(async move {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(STREAMS_MAX).enable_connect_protocol();
            builder.max_header_list_size(HEAD.head_bytes_max as u32);
            let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(io).await else { return };
            let mut kept = Vec::new();
            while let Some(accepted) = connection.accept().await {
                let Ok((request, respond)) = accepted else { break };
                let id = respond.stream_id().as_u32();
                let (parts, body) = request.into_parts();
                let authority = parts.uri.authority().map_or_else(
                    || parts.headers.get("host").map(|host| host.to_str().unwrap_or_default()).unwrap_or_default(),
                    |authority| authority.as_str(),
                );
                let path = match parts.method == http::Method::CONNECT && parts.uri.path_and_query().is_none() {
                    true => authority,
                    false => parts.uri.path_and_query().map_or("", |path| path.as_str()),
                };
                let mut head = vec![(String::new(), format!("{} {authority} {path}", parts.method))];
                head.extend(map_of(&parts.headers, Role::Server));
                notes.borrow_mut().entry(id).or_default().head = head;
                // Nobody answers.
                kept.push(respond);
                spawn_local(read_body(body, id, Rc::clone(&notes)));
            }
            let _ = std::future::poll_fn(|context| connection.poll_closed(context)).await;
        });
        let begin = [PREFACE, &frame(4, 0, 0, &[]), &frame(4, 1, 0, &[])].concat();
        client.write_all(&begin).await.unwrap();
        settle().await;
        drain(&mut client).await;
        client.write_all(bytes).await.unwrap();
        settle().await;
        let output = drain(&mut client).await;
        let messages = messages.borrow().clone();
        Seen::new(messages, &output)
    })
}

pub(crate) fn client_of_h2(bytes: &[u8]) -> Seen {
    run(async {
        let (mut server, io) = tokio::io::duplex(1 << 20);
        server.write_all(&[frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat()).await.unwrap();
        let (mut send, connection) =
            h2::client::Builder::new().enable_push(false).handshake::<_, bytes::Bytes>(io).await.unwrap();
        spawn_local(connection);
        let messages = Messages::default();
        let mut kept = Vec::new();
        for _ in 0..ASKED {
            let request = http::Request::get("http://a.example/").body(()).unwrap();
            let (mut response, stream) = send.send_request(request, true).unwrap();
            let id = response.stream_id().as_u32();
            kept.push(stream);
            let notes = Rc::clone(&messages);
            spawn_local(async move {
                let mut head = Vec::new();
                let answer = loop {
                    let next = std::future::poll_fn(|context| match response.poll_informational(context) {
                        Poll::Ready(Some(interim)) => Poll::Ready(interim.map(Err)),
                        Poll::Ready(None) | Poll::Pending => Pin::new(&mut response).poll(context).map_ok(Ok),
                    });
                    match next.await {
                        Ok(Ok(answer)) => break Ok(answer),
                        Ok(Err(interim)) => {
                            let interim: http::Response<()> = interim;
                            head.push((String::new(), interim.status().as_u16().to_string()));
                            head.extend(map_of(interim.headers(), Role::Client));
                        }
                        Err(error) => break Err(error),
                    }
                };
                let Ok(answer) = answer else { return };
                let (parts, body) = answer.into_parts();
                head.push((String::new(), parts.status.as_u16().to_string()));
                head.extend(map_of(&parts.headers, Role::Client));
                notes.borrow_mut().entry(id).or_default().head = head;
                read_body(body, id, notes).await;
            });
        }
        settle().await;
        drain(&mut server).await;
        server.write_all(bytes).await.unwrap();
        settle().await;
        let output = drain(&mut server).await;
        let messages = messages.borrow().clone();
        drop(kept);
        Seen::new(messages, &output)
    })
}

pub(crate) fn theirs(role: Role, bytes: &[u8]) -> Seen {
    match role {
        Role::Server => server_of_h2(bytes),
        Role::Client => client_of_h2(bytes),
    }
}
