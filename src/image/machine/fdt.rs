//! The structure of a flattened device tree (Devicetree Specification, chapter 5): checked once, then walked.
//!
//! Own code, though `dtoolkit` reads trees: what it has checked it expects to hold, and what those expectations would say
//! took 8 KB of an image of 256. Here nothing is expected: what is not there ends a walk.

use super::TreeError;

const MAGIC: u32 = 0xd00d_feed;
/// The version that this code was written for, and the oldest one a tree may be readable as.
const VERSION: u32 = 17;
const OLDEST_VERSION: u32 = 16;
/// Nodes may be nested so deep: a walk that skips them counts no further.
const MAX_DEPTH: usize = 1 << 12;

/// Tokens of the structure block.
mod token {
    pub const BEGIN_NODE: u32 = 1;
    pub const END_NODE: u32 = 2;
    pub const PROPERTY: u32 = 3;
    pub const NOP: u32 = 4;
    pub const END: u32 = 9;
}

/// A tree whose structure has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Fdt {
    reservations: &'static [u8],
    structure: &'static [u8],
    strings: &'static [u8],
}

/// What comes next in the structure block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Begin(Node),
    End,
    Property(&'static [u8], &'static [u8]),
    Finish,
}

/// A node: its name, and where its properties begin in the structure block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The name with its unit address; empty for the root.
    pub name: &'static str,
    at: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

/// The bytes up to a NUL.
fn text(bytes: &'static [u8]) -> Option<&'static [u8]> {
    bytes.get(..bytes.iter().position(|byte| *byte == 0)?)
}

impl Fdt {
    /// Checks the structure of `blob`.
    ///
    /// # Errors
    /// Where it is broken, and how.
    pub fn new(blob: &'static [u8]) -> Result<Self, TreeError> {
        let broken = |problem, at| TreeError::Broken { problem, at };
        let field = |at| word(blob, at).ok_or(broken("cut short", at));
        if field(0)? != MAGIC {
            return Err(broken("no magic number", 0));
        }
        let blob = blob.get(..field(4)? as usize).ok_or(broken("longer than what was loaded", 4))?;
        if field(20)? < VERSION || !(OLDEST_VERSION..=VERSION).contains(&field(24)?) {
            return Err(broken("a version that is not known", 20));
        }
        let from = |at| blob.get(field(at)? as usize..).ok_or(broken("a block outside it", at));
        let block =
            |at, size| from(at)?.get(..field(size)? as usize).ok_or(broken("a block outside it", size));
        let fdt = Self { reservations: from(16)?, structure: block(8, 36)?, strings: block(12, 32)? };
        // The list of reservations has no length: it ends with an entry of zeros.
        if !fdt.reservations.as_chunks::<16>().0.contains(&[0; 16]) {
            return Err(broken("a list of reservations without an end", 16));
        }
        let start = field(8)? as usize;
        fdt.check().map_err(|(problem, at)| broken(problem, start + at))?;
        Ok(fdt)
    }

    /// The entries of the memory reservation block: address, size.
    pub fn reservations(self) -> impl Iterator<Item = (u64, u64)> {
        let entries = self.reservations.as_chunks::<16>().0.iter();
        entries.map_while(|entry| {
            let number = u128::from_be_bytes(*entry);
            (number != 0).then_some(((number >> 64) as u64, number as u64))
        })
    }

    /// The root.
    pub fn root(self) -> Node {
        match self.token(&mut 0) {
            Some(Token::Begin(root)) => root,
            _ => Node { name: "", at: self.structure.len() },
        }
    }

    /// The first of the node's properties that is called `name`.
    #[inline(never)]
    pub fn property(self, node: Node, name: &str) -> Option<&'static [u8]> {
        let mut at = node.at;
        while let Some(Token::Property(found, value)) = self.token(&mut at) {
            if found == name.as_bytes() {
                return Some(value);
            }
        }
        None
    }

    /// The node's children, in order.
    pub fn children(self, node: Node) -> impl Iterator<Item = Node> {
        let (mut at, mut depth) = (node.at, 0_usize);
        core::iter::from_fn(move || {
            loop {
                match self.token(&mut at)? {
                    Token::Begin(child) => {
                        depth += 1;
                        if depth == 1 {
                            return Some(child);
                        }
                    }
                    Token::End => depth = depth.checked_sub(1)?,
                    Token::Property(..) => {}
                    Token::Finish => return None,
                }
            }
        })
    }

    /// What comes at `at`, which then is behind it; `None` where that is broken.
    fn token(self, at: &mut usize) -> Option<Token> {
        let mut word = || {
            let word = word(self.structure, *at);
            *at += 4;
            word
        };
        let mut kind = word()?;
        while kind == token::NOP {
            kind = word()?;
        }
        match kind {
            token::BEGIN_NODE => {
                let name = text(self.structure.get(*at..)?)?;
                *at = (*at + name.len() + 1).next_multiple_of(4);
                // Names are told in lines of the console.
                let name =
                    core::str::from_utf8(name).ok().filter(|n| n.bytes().all(|b| b.is_ascii_graphic()))?;
                Some(Token::Begin(Node { name, at: *at }))
            }
            token::END_NODE => Some(Token::End),
            token::PROPERTY => {
                let (bytes, name) = (word()? as usize, word()? as usize);
                let value = self.structure.get(*at..)?.get(..bytes)?;
                *at = (*at + bytes).next_multiple_of(4);
                Some(Token::Property(text(self.strings.get(name..)?)?, value))
            }
            token::END => Some(Token::Finish),
            _ => None,
        }
    }

    /// Whether nodes are closed as they are opened, around a root, and have their properties in front.
    fn check(self) -> Result<(), (&'static str, usize)> {
        let (mut at, mut depth, mut behind_child) = (0, 0, false);
        loop {
            let here = at;
            match self.token(&mut at).ok_or(("neither node nor property", here))? {
                Token::Begin(_) if depth == MAX_DEPTH => return Err(("nodes nested too deep", here)),
                Token::Begin(_) => {
                    depth += 1;
                    behind_child = false;
                }
                Token::Property(..) if depth == 0 || behind_child => {
                    return Err(("a property outside the place for it", here));
                }
                Token::Property(..) => {}
                Token::End if depth <= 1 => {
                    let ends = depth == 1 && self.token(&mut at) == Some(Token::Finish);
                    return if ends { Ok(()) } else { Err(("no end behind the root", here)) };
                }
                Token::End => {
                    depth -= 1;
                    behind_child = true;
                }
                Token::Finish => return Err(("an end inside a node", here)),
            }
        }
    }
}
