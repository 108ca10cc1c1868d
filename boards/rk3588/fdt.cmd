# Trees of Linux have the SMMUs switched off. Where a tree has none by these names, nothing changes.
fdt set /iommu@fc900000 status okay
fdt set /iommu@fcb00000 status okay
