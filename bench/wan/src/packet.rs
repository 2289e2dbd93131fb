//! The one thing that a link changes in a packet: its congestion mark (RFC 3168 §5).

/// The ECN bits of the second header byte (IPv4) and what they mean.
const ECN: u8 = 0b11;
const NOT_CAPABLE: u8 = 0b00;

/// Sets "congestion experienced" in an IP packet whose sender said that it understands it, and
/// says whether it did.
pub fn mark(packet: &mut [u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => mark_v4(packet),
        Some(6) if packet.len() >= 40 => mark_v6(packet),
        _ => false,
    }
}

fn mark_v4(packet: &mut [u8]) -> bool {
    let old = packet[1];
    if old & ECN == NOT_CAPABLE {
        return false;
    }
    packet[1] = old | ECN;
    // RFC 1624 equation 3: the checksum of a header in which one 16-bit word has changed.
    let word = |second| u32::from(u16::from_be_bytes([packet[0], second]));
    let checksum = u32::from(u16::from_be_bytes([packet[10], packet[11]]));
    let mut sum = (!checksum & 0xffff) + (!word(old) & 0xffff) + word(packet[1]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    packet[10] = high;
    packet[11] = low;
    true
}

fn mark_v6(packet: &mut [u8]) -> bool {
    // The traffic class spans two bytes; its last two bits are bits 4 and 5 of the second.
    if (packet[1] >> 4) & ECN == NOT_CAPABLE {
        return false;
    }
    packet[1] |= ECN << 4;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_v4(second: u8) -> [u8; 20] {
        let mut header = [
            0x45, second, 0, 60, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        let [high, low] = checksum(&header).to_be_bytes();
        header[10] = high;
        header[11] = low;
        header
    }

    /// The Internet checksum in its plain form (RFC 1071).
    fn checksum(header: &[u8]) -> u16 {
        let words = header
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn a_capable_packet_is_marked_and_its_checksum_holds() {
        for second in 0..=255 {
            let mut packet = header_v4(second);
            let before = packet;
            let capable = second & 3 != 0;
            assert_eq!(mark(&mut packet), capable);
            assert_eq!(packet[1], if capable { second | 3 } else { second });
            assert_eq!(checksum(&packet), 0, "{second}");
            assert!(capable || packet == before);
        }
    }

    #[test]
    fn version_6_has_its_bits_elsewhere() {
        for (second, capable) in [
            (0x00, false),
            (0x0f, false),
            (0x10, true),
            (0x20, true),
            (0x30, true),
        ] {
            let mut packet = [0; 40];
            packet[0] = 0x60;
            packet[1] = second;
            assert_eq!(mark(&mut packet), capable, "{second:x}");
            assert_eq!(packet[1], if capable { second | 0x30 } else { second });
        }
    }

    #[test]
    fn what_is_no_packet_is_left_alone() {
        for bytes in [
            &mut [][..],
            &mut [0x45, 1][..],
            &mut [0x60; 39][..],
            &mut [0x15; 60][..],
        ] {
            assert!(!mark(bytes));
        }
    }
}
