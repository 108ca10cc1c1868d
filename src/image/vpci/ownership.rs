//! Which VM has which device: what is not isolated from each other never belongs to two.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::machine::Part;

/// Why two devices with this part in common are not isolated.
const fn why(part: Part) -> &'static str {
    match part {
        Part::Function(_) => "they are functions of one device",
        Part::Stream(..) => "they are one stream",
        Part::Registers(_) => "their registers overlap",
        Part::Line(_) => "they share an interrupt line",
    }
}

fn meet(one: Part, other: Part) -> bool {
    match (one, other) {
        (Part::Registers(one), Part::Registers(other)) => one.overlaps(other),
        (one, other) => one == other,
    }
}

/// The devices that belong to VMs; a VM is told by its number.
#[derive(Clone, Debug, Default)]
pub struct Ownership {
    claims: Vec<(String, usize, Vec<Part>)>,
}

impl Ownership {
    /// Gives `device`, which has these parts, to VM number `vm`.
    ///
    /// # Errors
    /// Some VM has it, or another VM has one that shares a part: a line that says which. Nothing is changed then.
    pub fn claim(&mut self, device: &str, vm: usize, parts: Vec<Part>) -> Result<(), String> {
        for (other, owner, others) in &self.claims {
            if other == device {
                return Err(format!("{device} belongs to VM {owner} already"));
            }
            let shared = parts.iter().find(|part| others.iter().any(|other| meet(**part, *other)));
            if let Some(part) = shared.filter(|_| *owner != vm) {
                let why = why(*part);
                return Err(format!(
                    "{device} is not isolated from {other}, which belongs to VM {owner}: {why}"
                ));
            }
        }
        self.claims.push((device.to_string(), vm, parts));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use strandline::addr::StreamId;

    use super::super::fake::bdf;
    use super::*;
    use crate::machine::Region;

    fn claim(owners: &mut Ownership, device: &str, vm: usize) -> Result<(), String> {
        owners.claim(device, vm, vec![bdf(device).part()])
    }

    #[test]
    fn function_belongs_to_one_vm_once() {
        let mut owners = Ownership::default();
        assert_eq!(claim(&mut owners, "00:01.0", 0), Ok(()));
        let taken = Err("00:01.0 belongs to VM 0 already".to_string());
        assert_eq!(claim(&mut owners, "00:01.0", 0), taken);
        assert_eq!(claim(&mut owners, "00:01.0", 1), taken);
    }

    #[test]
    fn functions_of_one_device_belong_to_one_vm() {
        let mut owners = Ownership::default();
        assert_eq!(claim(&mut owners, "00:01.0", 0), Ok(()));
        assert_eq!(
            claim(&mut owners, "00:01.1", 1).unwrap_err(),
            "00:01.1 is not isolated from 00:01.0, which belongs to VM 0: they are functions of one device"
        );
        assert_eq!(claim(&mut owners, "00:01.1", 0), Ok(()));
        assert_eq!(claim(&mut owners, "00:02.0", 1), Ok(()));
    }

    #[test]
    fn devices_with_a_part_in_common_belong_to_one_vm() {
        let region = |start| Region::new(start, 0x2000).unwrap();
        let parts = [
            (Part::Stream(0, StreamId(7)), "they are one stream"),
            (Part::Line(40), "they share an interrupt line"),
            (Part::Registers(region(0x1000)), "their registers overlap"),
        ];
        for (part, why) in parts {
            let mut owners = Ownership::default();
            owners.claim("/a", 0, vec![part]).unwrap();
            let error = owners.claim("/b", 1, vec![Part::Line(41), part]).unwrap_err();
            assert_eq!(error, format!("/b is not isolated from /a, which belongs to VM 0: {why}"));
            assert_eq!(owners.claim("/b", 0, vec![part]), Ok(()));
        }
        let mut owners = Ownership::default();
        owners.claim("/a", 0, vec![Part::Registers(region(0x1000)), Part::Stream(0, StreamId(7))]).unwrap();
        assert!(owners.claim("/b", 1, vec![Part::Registers(region(0x2000))]).is_err());
        let apart = vec![Part::Registers(region(0x3000)), Part::Stream(1, StreamId(7)), Part::Line(7)];
        assert_eq!(owners.claim("/c", 1, apart), Ok(()));
    }
}
