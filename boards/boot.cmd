# Starts Strandline from U-Boot: loads the image and the bundle from where this script came from, and jumps.
#
# Where that is, the boot commands that come with U-Boot say: devtype, devnum, distro_bootpart, prefix. devtype "dhcp" is
# a TFTP server. Messages are without apostrophes: the parser takes them for quotes even in double quotes.
if test "${devtype}" = dhcp; then
	setenv strandline_get 'tftpboot ${strandline_to} ${prefix}${strandline_file}'
	setenv strandline_from "the TFTP server"
else
	setenv strandline_get 'load ${devtype} ${devnum}:${distro_bootpart} ${strandline_to} ${prefix}${strandline_file}'
	setenv strandline_from "${devtype} ${devnum}:${distro_bootpart} ${prefix}"
fi
setenv strandline_fdt ${fdtcontroladdr}
setenv strandline_to ${fdt_addr_r}
setenv strandline_file strandline.dtb
if test -n "${fdt_addr_r}"; then
	if run strandline_get; then setenv strandline_fdt ${fdt_addr_r}; fi
fi
setenv strandline_to ${kernel_addr_r}
setenv strandline_file strandline.img
if run strandline_get; then
	setenv strandline_to ${ramdisk_addr_r}
	setenv strandline_file strandline.bundle
	if run strandline_get; then
		booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${strandline_fdt}
		echo "strandline: failed: booti does not start what was loaded from ${strandline_from}"
	else
		echo "strandline: failed: cannot load strandline.bundle from ${strandline_from}: it is missing, or does not fit"
	fi
else
	echo "strandline: failed: no strandline.img on ${strandline_from}: run this script from the medium it was written to (devtype, devnum, distro_bootpart)"
fi
