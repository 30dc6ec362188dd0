//! A far side that answers bytes: for malformed answers, and to see exactly what the sidecar sends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A scripted far side: every request head gets the same bytes, then the connection is kept open until the peer leaves.
pub struct RawServer {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _running: DropGuard,
}

impl RawServer {
    /// Answers every request head with these bytes; with `closes` the connection then ends.
    pub async fn answering(bytes: impl Into<Vec<u8>>, closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, bytes, closes)
    }

    /// The same on a listener that is there already, for answers that name its address.
    pub fn on(listener: TcpListener, bytes: impl Into<Vec<u8>>, closes: bool) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let (seen, stopped) = (Arc::clone(&heads), stop.clone());
        tokio::spawn(stopped.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (bytes, seen) = (Arc::clone(&bytes), Arc::clone(&seen));
                let one = async move { serve(stream, &bytes, closes, &seen).await };
                tokio::spawn(stopped.clone().run_until_cancelled_owned(one));
            }
        }));
        Self {
            address,
            heads,
            _running: stop.drop_guard(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The request heads so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answer: &[u8], closes: bool, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut piece = [0u8; 4096];
    loop {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend_from_slice(&piece[..count]),
        }
        let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let rest = head.split_off(end + 4);
        let text = String::from_utf8_lossy(&head).into_owned();
        heads.lock().unwrap().push(text);
        head = rest;
        if stream.write_all(answer).await.is_err() || closes {
            return;
        }
    }
}
