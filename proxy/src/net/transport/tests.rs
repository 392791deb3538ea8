use super::*;
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn sockets_to_backends_give_up_what_is_not_acknowledged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let user_timeout = |tcp: &TcpStream| SockRef::from(tcp).tcp_user_timeout().unwrap();
    prepare(&tcp, Duration::ZERO).unwrap();
    assert_eq!(user_timeout(&tcp), None);
    prepare(&tcp, Duration::from_secs(7)).unwrap();
    assert_eq!(user_timeout(&tcp), Some(Duration::from_secs(7)));
    assert!(tcp.nodelay().unwrap());
}

/// Two ends of the kernel's, and two in memory.
async fn pairs() -> [(Transport, Transport); 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ours = TcpStream::connect(address).await.unwrap();
    let (theirs, from) = listener.accept().await.unwrap();
    let (near, far) = memory::pair(memory::Shape::default(), from, address);
    [(Transport::Tcp(ours), Transport::Tcp(theirs)), (Transport::Memory(near), Transport::Memory(far))]
}

async fn write(end: &mut Transport, bytes: &[u8]) -> Result<(), io::ErrorKind> {
    end.write_all(bytes).await.map_err(|error| error.kind())
}

/// What reads give until the end, or an error.
async fn read(end: &mut Transport) -> (Vec<u8>, Option<io::ErrorKind>) {
    let (mut bytes, mut space) = (Vec::new(), [0; 16]);
    loop {
        match end.read(&mut space).await {
            Ok(0) => return (bytes, None),
            Ok(count) => bytes.extend(&space[..count]),
            Err(error) => return (bytes, Some(error.kind())),
        }
    }
}

/// Ready once the other end's doing has come here.
async fn arrived(end: &Transport) {
    poll_fn(|context| end.poll_peek(context, &mut ReadBuf::new(&mut [0]))).await.ok();
}

#[tokio::test]
async fn memory_ends_and_resets_as_the_kernel_does() {
    let mut seen = Vec::new();
    for round in 0..2 {
        let mut observed: Vec<String> = Vec::new();
        let take = async || pairs().await.into_iter().nth(round).unwrap();
        // What was written comes before the end, and the other way stays open.
        let (mut one, mut two) = take().await;
        write(&mut one, b"some bytes and some more").await.unwrap();
        one.shutdown().await.unwrap();
        observed.push(format!("{:?} {:?}", read(&mut two).await, write(&mut one, b"x").await.is_err()));
        write(&mut two, b"back").await.unwrap();
        drop(two);
        observed.push(format!("{:?} {:?}", read(&mut one).await, one.look().ok()));
        // An end with bytes unread is a reset.
        let (mut one, two) = take().await;
        write(&mut one, b"unread").await.unwrap();
        arrived(&two).await;
        drop(two);
        observed.push(format!("{:?} then {:?}", read(&mut one).await, read(&mut one).await));
        observed.push(format!("{:?}", write(&mut one, b"x").await));
        // As is one that was asked for.
        let (one, mut two) = take().await;
        one.end_by_reset();
        drop(one);
        observed.push(format!("{:?}", read(&mut two).await));
        // What is written to an end that has gone is taken, and a reset comes back.
        let (mut one, two) = take().await;
        drop(two);
        arrived(&one).await;
        observed.push(format!("{:?}", write(&mut one, b"x").await));
        let failed = loop {
            match one.try_write(b"x") {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => break error.kind(),
            }
        };
        observed.push(format!("{failed:?} {:?} {:?}", one.look().map_err(|error| error.kind()), read(&mut one).await));
        // A look takes nothing, and nothing is nothing.
        let (mut one, mut two) = take().await;
        observed.push(format!("{:?}", two.look().map_err(|error| error.kind())));
        write(&mut one, b"look").await.unwrap();
        arrived(&two).await;
        observed.push(format!("{:?} {:?}", two.look().ok(), two.try_read(&mut [0; 2]).ok()));
        drop(one);
        observed.push(format!("{:?}", read(&mut two).await));
        seen.push(observed);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn an_end_that_does_not_read_stops_the_other_from_writing_until_there_is_room() {
    for (one, two) in pairs().await {
        let mut written = 0;
        while one.try_write(&[7; 8192]).is_ok_and(|count| {
            written += count;
            true
        }) {}
        let ready = |context: &mut Context<'_>| one.poll_write_ready(context);
        assert!(written > 0 && poll_fn(|context| Poll::Ready(ready(context).is_pending())).await);
        let mut read = 0;
        while read < written {
            poll_fn(|context| two.poll_read_ready(context)).await.unwrap();
            read += two.try_read(&mut [0; 65536]).unwrap_or(0);
        }
        poll_fn(ready).await.unwrap();
        assert!(one.try_write(b"x").is_ok());
    }
}

#[tokio::test]
async fn bytes_that_nobody_will_read_are_noticed_and_an_end_is_none() {
    for (ours, mut theirs) in pairs().await {
        let mut stream = crate::net::stream::Stream::Plain(ours);
        assert!(!stream.has_sent_more());
        write(&mut theirs, b"x").await.unwrap();
        let arrived = poll_fn(|context| stream.poll_read_ready(context)).await;
        assert!(arrived.is_ok() && stream.has_sent_more());
        drop(theirs);
        // The end may come after a readiness that is out of date.
        while stream.poll_read_ready(&mut Context::from_waker(std::task::Waker::noop())).is_pending() {
            tokio::task::yield_now().await;
        }
        assert!(!stream.has_sent_more());
    }
}
