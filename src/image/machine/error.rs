//! What can be wrong with a device tree, each told in one line that names the node and the property.

use core::fmt;

use super::Region;

/// Why a device tree does not describe a machine that EL2 can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// The blob is not a device tree, or its structure is broken.
    Broken {
        /// How.
        problem: &'static str,
        /// At which byte.
        at: usize,
    },
    /// Something EL2 cannot do without is not in the tree.
    Missing(&'static str),
    /// A node describes something EL2 does not support.
    Unsupported {
        /// The node's name.
        node: &'static str,
        /// What about it.
        what: &'static str,
    },
    /// A property is absent where it must be there, or has a value that makes no sense.
    Property {
        /// The node's name.
        node: &'static str,
        /// The property's name.
        property: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is more of something than EL2 has room for.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Two things claim the same addresses.
    Overlap {
        /// The one.
        one: (&'static str, Region),
        /// The other.
        other: (&'static str, Region),
    },
    /// Something that must lie in RAM does not.
    OutsideRam(&'static str, Region),
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("device tree: ")?;
        match self {
            Self::Broken { problem, at } => write!(f, "broken at byte {at}: {problem}"),
            Self::Missing(what) => write!(f, "no {what}"),
            Self::Unsupported { node, what } => write!(f, "{node}: not supported: {what}"),
            Self::Property { node, property, problem } => write!(f, "{node}: {property}: {problem}"),
            Self::TooMany { what, limit } => write!(f, "more than {limit} {what}"),
            Self::Overlap { one, other: (other, with) } => {
                place(f, *one)?;
                write!(f, " overlaps {other} {with}")
            }
            Self::OutsideRam(what, at) => {
                place(f, (what, *at))?;
                f.write_str(" is not in RAM")
            }
        }
    }
}

/// Where something lies: of a node with a unit address, which is what `reg` gives.
fn place(f: &mut fmt::Formatter<'_>, (what, at): (&str, Region)) -> fmt::Result {
    write!(f, "{what}{} {at}", if what.contains('@') { ": reg:" } else { "" })
}
