//! CONNECT: the place that it names, and which places are allowed (`outbound.allow_hosts`).
//!
//! Two checks, both of listed things alone: the name before it is resolved, and every address that it resolves to, before
//! anything connects to that very address. Pure. `address.rs` knows what kind of place an address is.

use std::fmt;
use std::net::IpAddr;

use super::address;

/// The port of https, which a listed host without one has.
pub const HTTPS_PORT: u16 = 443;
/// The longest host name (RFC 1035 section 2.3.4).
const HOST_CHARS_MAX: usize = 253;
/// A network may not be larger than these, in bits of its prefix.
const PREFIX_MIN: (u8, u8) = (8, 16);

/// Why a place cannot be named so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceFault {
    /// No host, or no port behind it.
    #[error("write HOST:PORT")]
    Form,
    /// A name that no host has, or that a resolver may take for an address.
    #[error("this is no host name")]
    Host,
    /// A port that is no number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// A network with a prefix that is too short, too long, or leaves bits behind it.
    #[error("a network is ADDRESS/PREFIX, with at least 8 bits (IPv6: 16) and nothing behind them")]
    Network,
    /// `*`, or `*.com`.
    #[error("a wildcard stands for what is under a name of at least two parts: *.example.com")]
    Wildcard,
}

/// A host in its one spelling: a name in lower case, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Resolved before it is connected to.
    Name(Box<str>),
    /// Connected to as it is; never IPv4 inside IPv6.
    Address(IpAddr),
}

impl Host {
    /// Reads a name, or an address with or without brackets.
    ///
    /// # Errors
    /// [`PlaceFault::Host`].
    pub fn parse(text: &str) -> Result<Self, PlaceFault> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            let bracketed = bare.is_some();
            return if bracketed && address.is_ipv4() {
                Err(PlaceFault::Host)
            } else {
                Ok(Self::Address(address.to_canonical()))
            };
        }
        let name = text.to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && { label.bytes() }.all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // Resolvers read `127.1`, `0x7f.1` and `2130706433` as addresses.
        let last = name.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
        if name.len() <= HOST_CHARS_MAX && name.split('.').all(label) && !numeric {
            Ok(Self::Name(name.into()))
        } else {
            Err(PlaceFault::Host)
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Where a tunnel is to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Place {
    /// Reads the target of a CONNECT, which always has a port (RFC 9110 section 9.3.6).
    ///
    /// # Errors
    /// [`PlaceFault`].
    pub fn parse(target: &str) -> Result<Self, PlaceFault> {
        let (host, port) = target.rsplit_once(':').ok_or(PlaceFault::Form)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(PlaceFault::Form);
        }
        Ok(Self {
            host: Host::parse(host)?,
            port: self::port(port)?,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn port(text: &str) -> Result<u16, PlaceFault> {
    let plain = !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| plain).ok_or(PlaceFault::Port)
}

/// One of `outbound.allow_hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    what: Listed,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Listed {
    /// This host.
    Host(Host),
    /// Every host under this name, not the name itself; kept with its leading dot.
    Under(Box<str>),
    /// Every address of a network.
    Network(IpAddr, u8),
}

/// The hosts that may be tunnelled to without a look inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Entry>);

impl AllowedHosts {
    /// Reads and adds `HOST`, `*.SUFFIX`, `ADDRESS` or `NETWORK/PREFIX`, each but the last with `:PORT` or without.
    ///
    /// # Errors
    /// [`PlaceFault`].
    pub fn add(&mut self, text: &str) -> Result<(), PlaceFault> {
        let entry = entry(text.trim())?;
        self.0.push(entry);
        Ok(())
    }

    /// Whether none is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a tunnel to this place may be asked for at all.
    pub fn names(&self, place: &Place) -> bool {
        self.0.iter().any(|entry| {
            entry.port == place.port
                && match (&entry.what, &place.host) {
                    (Listed::Host(listed), host) => listed == host,
                    (Listed::Under(suffix), Host::Name(name)) => name.ends_with(&**suffix),
                    (Listed::Network(..), Host::Address(address)) => entry.lists(*address),
                    (Listed::Under(_), Host::Address(_)) | (Listed::Network(..), Host::Name(_)) => {
                        false
                    }
                }
        })
    }

    /// Whether a tunnel that may be asked for may lead to this address: the public Internet, or an address that is listed
    /// itself. A network lists the private ones in it; loopback, the link and metadata services only go by themselves.
    ///
    /// # Errors
    /// The kind of address that it is.
    pub fn admits(&self, address: IpAddr) -> Result<(), address::Kind> {
        match address::kind(address) {
            Some(kind) if !self.lists(address) => Err(kind),
            Some(_) | None => Ok(()),
        }
    }

    fn lists(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|entry| entry.lists(address))
    }
}

impl Entry {
    /// Whether it lists this address, whatever the port.
    fn lists(&self, address: IpAddr) -> bool {
        match &self.what {
            Listed::Host(Host::Address(listed)) => *listed == address,
            Listed::Network(network, prefix) => {
                address::kind(address).is_none_or(address::Kind::comes_with_its_network)
                    && is_inside(address, *network, *prefix)
            }
            Listed::Host(Host::Name(_)) | Listed::Under(_) => false,
        }
    }
}

fn entry(text: &str) -> Result<Entry, PlaceFault> {
    if let Some((network, prefix)) = text.split_once('/') {
        let network: IpAddr = network.parse().map_err(|_| PlaceFault::Network)?;
        let prefix: u8 = prefix.parse().map_err(|_| PlaceFault::Network)?;
        let (low, high) = match network {
            IpAddr::V4(_) => (PREFIX_MIN.0, 32),
            IpAddr::V6(_) => (PREFIX_MIN.1, 128),
        };
        let whole = (low..=high).contains(&prefix)
            && network == network.to_canonical()
            && bits(network) & !mask(network, prefix) == 0;
        return if whole {
            Ok(Entry {
                what: Listed::Network(network, prefix),
                port: HTTPS_PORT,
            })
        } else {
            Err(PlaceFault::Network)
        };
    }
    // An address without brackets has no port.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, self::port(port)?)
        }
        Some(_) | None => (text, HTTPS_PORT),
    };
    let what = match host.strip_prefix('*') {
        Some(suffix) => {
            let name = suffix.strip_prefix('.').ok_or(PlaceFault::Wildcard)?;
            match Host::parse(name)? {
                Host::Name(name) if name.contains('.') => Listed::Under(format!(".{name}").into()),
                Host::Name(_) | Host::Address(_) => return Err(PlaceFault::Wildcard),
            }
        }
        None => Listed::Host(Host::parse(host)?),
    };
    Ok(Entry { what, port })
}

/// An address as a number; IPv4 in the lower bits.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(address: IpAddr, prefix: u8) -> u128 {
    match address {
        IpAddr::V4(_) => {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            u128::from(!host)
        }
        IpAddr::V6(_) => !u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0),
    }
}

fn is_inside(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    address.is_ipv4() == network.is_ipv4() && bits(address) & mask(network, prefix) == bits(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(entries: &[&str]) -> AllowedHosts {
        let mut all = AllowedHosts::default();
        for entry in entries {
            all.add(entry).unwrap_or_else(|f| panic!("{entry}: {f}"));
        }
        all
    }

    fn place(text: &str) -> Place {
        Place::parse(text).unwrap_or_else(|f| panic!("{text}: {f}"))
    }

    #[test]
    fn a_place_has_one_spelling() {
        for (text, expected) in [
            ("pypi.org:443", "pypi.org:443"),
            ("PyPI.ORG:443", "pypi.org:443"),
            ("a_b.example:8080", "a_b.example:8080"),
            ("10.0.0.1:443", "10.0.0.1:443"),
            ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
            ("[::ffff:10.0.0.1]:443", "10.0.0.1:443"),
        ] {
            assert_eq!(place(text).to_string(), expected);
        }
        for text in [
            "",
            ":443",
            "pypi.org",
            "pypi.org:",
            "pypi.org:0",
            "pypi.org:0443",
            "pypi.org:+443",
            "pypi.org:65536",
            "pypi.org:https",
            "pypi.org.:443",
            ".pypi.org:443",
            "pypi..org:443",
            "-a.example:443",
            "a-.example:443",
            "a b:443",
            "user@pypi.org:443",
            "pypi.org/x:443",
            "pypi%2eorg:443",
            "pypi.org#:443",
            "münchen.example:443",
            "2001:db8::1:443",
            "[127.0.0.1]:443",
            "[::1:443",
            "[fe80::1%eth0]:443",
            // What inet_aton takes for 127.0.0.1.
            "127.1:443",
            "2130706433:443",
            "0x7f000001:443",
            "0x7f.1:443",
            "127.0.0.0x1:443",
            "0177.0.0.1:443",
            "127.0.0.01:443",
            "example.0x1:443",
        ] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_listed_may_be_asked_for() {
        let all = allowed(&[
            "pypi.org",
            "*.pythonhosted.org",
            "Registry.example:8443",
            "10.2.0.0/16",
            "127.0.0.1:5432",
            "[fd00::1]:443",
        ]);
        for text in [
            "pypi.org:443",
            "files.pythonhosted.org:443",
            "a.b.pythonhosted.org:443",
            "registry.example:8443",
            "10.2.3.4:443",
            "[::ffff:10.2.3.4]:443",
            "127.0.0.1:5432",
            "[fd00::1]:443",
        ] {
            assert!(all.names(&place(text)), "{text}");
        }
        for text in [
            "pypi.org:80",
            "pythonhosted.org:443",
            "xpythonhosted.org:443",
            "pythonhosted.org.evil.example:443",
            "pypi.org.evil.example:443",
            "evil-pypi.org:443",
            "registry.example:443",
            "10.3.0.0:443",
            "10.2.3.4:22",
            "127.0.0.1:443",
            "127.0.0.2:5432",
            "[fd00::2]:443",
            "8.8.8.8:443",
        ] {
            assert!(!all.names(&place(text)), "{text}");
        }
        assert!(!AllowedHosts::default().names(&place("pypi.org:443")));
    }

    #[test]
    fn what_a_listed_name_resolves_to_is_public_or_listed_too() {
        let names = allowed(&["pypi.org", "*.example.com"]);
        let more = allowed(&[
            "pypi.org",
            "10.0.0.0/8",
            "127.0.0.1",
            "169.254.0.0/16",
            "fd00::/16",
        ]);
        for (address, alone, listed) in [
            ("151.101.0.223", true, true),
            ("2a04:4e42::223", true, true),
            ("10.1.2.3", false, true),
            ("::ffff:10.1.2.3", false, true),
            ("64:ff9b::10.1.2.3", false, false),
            ("fd00::7", false, true),
            ("127.0.0.1", false, true),
            ("127.0.0.2", false, false),
            ("::1", false, false),
            ("192.168.0.1", false, false),
            ("169.254.169.254", false, false),
            ("fd00:ec2::254", false, false),
            ("168.63.129.16", false, false),
            ("0.0.0.0", false, false),
            ("224.0.0.1", false, false),
        ] {
            let ip = address.parse().unwrap();
            assert_eq!(names.admits(ip).is_ok(), alone, "{address}");
            assert_eq!(more.admits(ip).is_ok(), listed, "{address}");
        }
        let metadata = allowed(&["169.254.169.254"]);
        assert!(metadata.admits("169.254.169.254".parse().unwrap()).is_ok());
        assert!(metadata.admits("169.254.170.2".parse().unwrap()).is_err());
    }

    #[test]
    fn what_lists_too_much_is_refused() {
        use PlaceFault::{Host, Network, Port, Wildcard};
        for (text, fault) in [
            ("*", Wildcard),
            ("*.com", Wildcard),
            ("*.", Host),
            ("*example.com", Wildcard),
            ("a.*.example.com", Host),
            ("", Host),
            ("https://pypi.org", Network),
            ("pypi.org/simple", Network),
            ("pypi.org:", Port),
            ("0.0.0.0/0", Network),
            ("10.0.0.0/7", Network),
            ("10.0.0.1/8", Network),
            ("10.0.0.0/33", Network),
            ("::/0", Network),
            ("fd00::/15", Network),
            ("::ffff:10.0.0.0/104", Network),
            ("127.1", Host),
        ] {
            let actual = AllowedHosts::default().add(text).unwrap_err();
            assert_eq!(actual, fault, "{text}");
        }
        assert_eq!(allowed(&["a.example", "b.example"]).len(), 2);
    }
}
