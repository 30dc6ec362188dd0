//! What kind of place an IP address is: the public Internet, or one that nobody is sent to unless it is listed.
//!
//! The IANA registries of special-purpose addresses, and the metadata services of the clouds. An address inside an address
//! (IPv4-mapped, NAT64, 6to4) is judged by the one that it leads to. Pure; `tunnel.rs` says what may be listed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A kind of address that no tunnel leads to by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No destination: 0.0.0.0, ::.
    Unspecified,
    /// This machine.
    Loopback,
    /// This link; metadata services live here.
    LinkLocal,
    /// A metadata service of a cloud elsewhere than on the link.
    Metadata,
    /// A network of somebody's own.
    Private,
    /// To many at a time.
    Multicast,
    /// Documentation, tests, the future, and forms that hide another address.
    Reserved,
}

impl Kind {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a metadata service",
            Self::Private => "a private address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
        }
    }

    /// Whether a network that holds the address lists it; the others must be listed by themselves.
    pub fn comes_with_its_network(self) -> bool {
        matches!(self, Self::Private)
    }
}

/// Metadata services that are not on the link: AWS and GCP over IPv6, Alibaba, Azure's wire server, Oracle's Classic.
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// The kind of an address; `None` for the public Internet.
pub fn kind(address: IpAddr) -> Option<Kind> {
    if METADATA.contains(&address.to_canonical()) {
        return Some(Kind::Metadata);
    }
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

fn kind_v4(address: Ipv4Addr) -> Option<Kind> {
    Some(match address.octets() {
        [0, 0, 0, 0] => Kind::Unspecified,
        [127, ..] => Kind::Loopback,
        [169, 254, ..] => Kind::LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Kind::Private,
        [224..=239, ..] => Kind::Multicast,
        // This network, protocol assignments, documentation, the 6to4 relay, benchmarks, the future and the broadcast.
        [0, ..]
        | [192, 0, 0 | 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [240..=255, ..] => Kind::Reserved,
        _ => return None,
    })
}

fn kind_v6(address: Ipv6Addr) -> Option<Kind> {
    if address.is_unspecified() {
        return Some(Kind::Unspecified);
    }
    if address.is_loopback() {
        return Some(Kind::Loopback);
    }
    match address.segments() {
        // IPv4-mapped, and NAT64 with the well-known prefix: the last four bytes are where it goes.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            kind(v4(high, low))
        }
        // 6to4.
        [0x2002, high, low, ..] => kind(v4(high, low)),
        [0xff00..=0xffff, ..] => Some(Kind::Multicast),
        [0xfe80..=0xfebf, ..] => Some(Kind::LinkLocal),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Kind::Private),
        // Teredo, benchmarks, ORCHID and all else of the protocol assignments; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => {
            Some(Kind::Reserved)
        }
        [0x2000..=0x3fff, ..] => None,
        // Nothing else is allocated: IPv4-compatible, local NAT64, discard-only, segment routing, the rest.
        _ => Some(Kind::Reserved),
    }
}

fn v4(high: u16, low: u16) -> IpAddr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_special_address_has_its_kind() {
        use Kind::{LinkLocal, Loopback, Metadata, Multicast, Private, Reserved, Unspecified};
        for (texts, expected) in [
            (
                "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 \
                 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 192.0.1.1 198.17.255.255 \
                 198.20.0.0 203.0.112.255 203.0.114.0 223.255.255.255 2606:4700:4700::1111 2001:4860:4860::8888 2001:200::1 \
                 2a00:1450:4001::1 3ffe::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1",
                None,
            ),
            ("0.0.0.0 :: ::ffff:0.0.0.0", Some(Unspecified)),
            (
                "127.0.0.1 127.255.255.255 127.1.2.3 ::1 ::ffff:127.0.0.1 64:ff9b::127.0.0.1 2002:7f00:1::",
                Some(Loopback),
            ),
            (
                "169.254.0.0 169.254.169.254 169.254.170.2 169.254.255.255 fe80::1 febf::1 ::ffff:169.254.169.254 \
                 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1",
                Some(LinkLocal),
            ),
            (
                "100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254 ::ffff:168.63.129.16 \
                 ::ffff:100.100.100.200 64:ff9b::168.63.129.16",
                Some(Metadata),
            ),
            (
                "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 100.64.0.0 100.127.255.255 \
                 fc00::1 fdff::1 fec0::1 ::ffff:10.0.0.1 64:ff9b::192.168.0.1 2002:a00:1::",
                Some(Private),
            ),
            (
                "224.0.0.1 239.255.255.255 ff02::1 ff00:: ffff:: ::ffff:224.0.0.1",
                Some(Multicast),
            ),
            (
                "0.0.0.1 0.255.255.255 192.0.0.1 192.0.2.1 198.51.100.1 203.0.113.1 192.88.99.1 198.18.0.0 198.19.255.255 \
                 240.0.0.1 255.255.255.255 ::2 ::127.0.0.1 ::7f00:1 64:ff9b:1::1 100::1 2001::1 2001:2::1 2001:1f::1 \
                 2001:1ff::1 2001:db8::1 3fff::1 3fff:fff::1 5f00::1 4000::1 1::1 fb00::1 ::fffe:127.0.0.1",
                Some(Reserved),
            ),
        ] {
            for text in texts.split_whitespace() {
                assert_eq!(kind(text.parse().unwrap()), expected, "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_address_is_what_it_leads_to_in_every_disguise(bits: u32) {
            let plain = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = plain.octets();
            let of = |text: String| kind(text.parse().unwrap());
            let expected = kind(plain.into());
            prop_assert_eq!(of(format!("::ffff:{plain}")), expected);
            prop_assert_eq!(of(format!("64:ff9b::{plain}")), expected);
            prop_assert_eq!(of(format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1")), expected);
        }

        #[test]
        fn what_the_standard_library_knows_is_not_public(bits: u128) {
            let v6 = Ipv6Addr::from_bits(bits);
            let special = v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast();
            prop_assert!(!special || kind(v6.into()).is_some());
        }
    }
}
