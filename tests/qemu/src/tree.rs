//! QEMU's own device tree, changed: a machine that says something else of itself than what it is.

use std::fs;

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};

use crate::{Boot, ScratchFile};

/// A device tree to boot with.
pub struct Tree(DeviceTree);

impl Tree {
    /// The tree of the machine that `boot` would be, boot modules included.
    ///
    /// # Panics
    /// QEMU does not give it.
    #[must_use]
    pub fn of(boot: Boot) -> Self {
        let file = ScratchFile::new("dumped");
        // QEMU ends when it has written the tree: there is no VM that could succeed.
        let outcome = boot.qemu(&["-machine", &format!("dumpdtb={}", file.name())]).run();
        let blob = fs::read(file.path()).unwrap_or_else(|e| panic!("no device tree: {e}{}", outcome.show()));
        let tree = DeviceTree::from_fdt(&Fdt::new(&blob).expect("QEMU's tree is well-formed"));
        Self(tree)
    }

    fn node(&mut self, path: &str) -> &mut DeviceTreeNode {
        let mut node = &mut self.0.root;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            node = node.child_mut(name).unwrap_or_else(|| panic!("the tree has no {path}"));
        }
        node
    }

    /// Without the node at `path`.
    ///
    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').expect("an absolute path");
        assert!(self.node(parent).remove_child(name).is_some(), "the tree has no {path}");
        self
    }

    /// With another value of a property that is a text.
    #[must_use]
    pub fn with_text(self, path: &str, property: &str, text: &str) -> Self {
        self.with(path, property, format!("{text}\0").as_bytes())
    }

    /// With another value of a property.
    ///
    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn with(mut self, path: &str, property: &str, value: &[u8]) -> Self {
        let node = self.node(path);
        let _before = node.remove_property(property);
        node.add_property(DeviceTreeProperty::new(property, value).expect("a legal name"));
        self
    }

    /// The value of a property.
    ///
    /// # Panics
    /// There is no such property.
    #[must_use]
    pub fn value(&mut self, path: &str, property: &str) -> Vec<u8> {
        let node = &*self.node(path);
        node.property(property).unwrap_or_else(|| panic!("{path} has no {property}")).value().to_vec()
    }

    /// The tree in a file, for QEMU's `-dtb`.
    #[must_use]
    pub fn file(&self) -> ScratchFile {
        ScratchFile::with("dtb", &self.0.to_dtb())
    }
}
