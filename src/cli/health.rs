//! `healthcheck`: a probe for images without a shell.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::Env;

use super::{ConfigArgument, complain, exit, print};

/// How long the local sidecar may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// Asks `/readyz` of the admin listener; exit 0 when it is ready, 1 when it is not or not there.
pub fn check(argument: &ConfigArgument, as_json: bool, env: &Env) -> u8 {
    let config = match argument.load(env) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let address = reachable(config.admin.listen);
    match ask(address) {
        Ok(answer) => {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let ready = head.split_whitespace().nth(1) == Some("200");
            if as_json {
                print(body);
            } else if !ready {
                complain(
                    &format!(
                        "not ready: {}",
                        body.split_whitespace().collect::<Vec<_>>().join(" ")
                    ),
                    exit::NO,
                );
            }
            if ready { exit::GOOD } else { exit::NO }
        }
        Err(fault) => complain(
            &format!(
                "no sidecar answers at {address}: {fault}; is it running, and is admin.listen right?"
            ),
            exit::NO,
        ),
    }
}

/// An address that is listened on everywhere is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIME)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
