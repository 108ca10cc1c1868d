//! Names of PCI functions.

use core::fmt;
use core::str::FromStr;

use crate::machine::Part;

/// A PCI function: bus, device on the bus, function of the device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    bus: u8,
    device: u8,
    function: u8,
}

impl Bdf {
    /// The function; `None` where `device` is above 31 or `function` above 7.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self { bus, device, function })
    }

    /// The function with this requester ID.
    #[must_use]
    pub const fn from_requester_id(id: u16) -> Self {
        Self { bus: (id >> 8) as u8, device: (id >> 3 & 0x1f) as u8, function: (id & 7) as u8 }
    }

    /// What the function's transactions carry: bus in bits 15:8, device in bits 7:3, function in bits 2:0. The device
    /// tree's `iommu-map` turns it into a stream.
    #[must_use]
    pub const fn requester_id(self) -> u16 {
        (self.bus as u16) << 8 | (self.device as u16) << 3 | self.function as u16
    }

    /// What it has in common with the functions it can't be given away without: those of one device. Without ACS between
    /// them they reach each other without passing the SMMU.
    #[must_use]
    pub const fn part(self) -> Part {
        Part::Function(self.requester_id() & !7)
    }

    /// The bus it is on.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// The same device's function `number`, of which the lowest three bits count.
    #[must_use]
    pub const fn sibling(self, number: u8) -> Self {
        Self { function: number & 7, ..self }
    }
}

/// A text is no `BB:DD.F`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotABdf;

impl FromStr for Bdf {
    type Err = NotABdf;

    /// Reads `BB:DD.F` in hexadecimal digits, exactly so many.
    fn from_str(text: &str) -> Result<Self, NotABdf> {
        let &[b1, b0, b':', d1, d0, b'.', f0] = text.as_bytes() else {
            return Err(NotABdf);
        };
        let bus = digit(b1)? << 4 | digit(b0)?;
        let device = digit(d1)? << 4 | digit(d0)?;
        Self::new(bus, device, digit(f0)?).ok_or(NotABdf)
    }
}

fn digit(byte: u8) -> Result<u8, NotABdf> {
    // A hexadecimal digit is below 16.
    char::from(byte).to_digit(16).map(|d| d as u8).ok_or(NotABdf)
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn name_is_read_and_shown() {
        let bdf: Bdf = "a0:1f.7".parse().unwrap();
        assert_eq!((bdf.bus(), bdf.device, bdf.function), (0xa0, 0x1f, 7));
        assert_eq!(bdf.to_string(), "a0:1f.7");
    }

    #[test]
    fn requester_id_is_bus_device_function() {
        assert_eq!("00:01.0".parse::<Bdf>().unwrap().requester_id(), 0x0008);
        assert_eq!("01:00.0".parse::<Bdf>().unwrap().requester_id(), 0x0100);
        assert_eq!("a5:13.6".parse::<Bdf>().unwrap().requester_id(), 0xa59e);
        assert_eq!(Bdf::from_requester_id(0xa59e).to_string(), "a5:13.6");
    }

    #[test]
    fn other_texts_are_no_names() {
        for text in [
            "",
            "0:1.0",
            "00:01",
            "00:20.0",
            "00:01.8",
            "00:01.00",
            "0000:00:01.0",
            "00-01.0",
            "+0:01.0",
            "0g:01.0",
            "ä:01.0",
        ] {
            assert_eq!(text.parse::<Bdf>(), Err(NotABdf), "{text}");
        }
    }

    #[test]
    fn functions_of_one_device_have_it_in_common() {
        let part = |text: &str| text.parse::<Bdf>().unwrap().part();
        assert_eq!(part("00:03.0"), part("00:03.7"));
        assert_ne!(part("00:03.0"), part("00:04.0"));
        assert_ne!(part("00:03.0"), part("01:03.0"));
    }
}
