# Older trees of Linux have the SMMU in front of PCIe switched off. Where a tree has none by this name, nothing changes.
fdt set /iommu@fc900000 status okay
