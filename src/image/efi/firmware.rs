//! What of UEFI's boot services the application calls, each call in one place.
#![expect(unsafe_code, reason = "calls the firmware through its tables")]

use core::ffi::c_void;
use core::fmt::{self, Write as _};
use core::ptr::{self, NonNull};
use core::slice;

use arrayvec::ArrayVec;
use strandline::addr::PAGE_BYTES;
use uefi_raw::protocol::file_system::{FileAttribute, FileMode, FileProtocolV1, SimpleFileSystemProtocol};
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{AllocateType, BootServices, MemoryDescriptor, MemoryType};
use uefi_raw::table::configuration::ConfigurationTable;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Guid, Handle, Status, guid};

use super::error::EfiError;

/// EFI_DTB_TABLE_GUID (Arm EBBR §2.4; UEFI specification 4.6).
const DEVICE_TREE: Guid = guid!("b1b621d5-f19c-41a5-830b-d9152c69aae0");
/// How often the firmware is asked to let go: what runs at its exit may change the map once more.
const EXIT_TRIES: usize = 4;
/// Descriptors that the map may grow by between two looks at it.
const MAP_SLACK: usize = 16;
/// A file position that means the end (UEFI specification 13.5, EFI_FILE_PROTOCOL.SetPosition).
const END_OF_FILE: u64 = u64::MAX;

/// The firmware, as long as its boot services are there.
pub struct Firmware<'a> {
    image: Handle,
    table: &'a SystemTable,
    boot: &'a BootServices,
}

/// The firmware's last map of memory.
#[derive(Clone, Copy)]
pub struct MemoryMap {
    bytes: &'static [u8],
    stride: usize,
}

impl<'a> Firmware<'a> {
    /// The firmware that has started `image` and handed it `table`; `None` where that makes no sense.
    ///
    /// # Safety
    /// 1. These are the arguments of an EFI application's entry point.
    /// 2. The boot services have not been left, and are not as long as this value is used, but by its own
    ///    [`Firmware::leave`].
    pub unsafe fn new(image: Handle, table: *const SystemTable) -> Option<Self> {
        // SAFETY: 1, 2: the system table is valid and nobody's to change until the boot services are left.
        let table = unsafe { table.as_ref() }?;
        // SAFETY: as above.
        let boot = unsafe { table.boot_services.as_ref() }?;
        Some(Self { image, table, boot })
    }

    /// Prints a line on the firmware's console.
    pub fn say(&self, args: fmt::Arguments<'_>) {
        // Where it can't be printed there is nobody to tell.
        let _ = Console { table: self.table, line: ArrayVec::new() }.write_fmt(format_args!("{args}\r\n"));
    }

    /// Where the firmware has its device tree.
    pub fn device_tree(&self) -> Option<NonNull<u8>> {
        let (tables, count) =
            (self.table.configuration_table, self.table.number_of_configuration_table_entries);
        if tables.is_null() {
            return None;
        }
        // SAFETY: the firmware has so many entries there, and changes them only when it is called.
        let tables: &[ConfigurationTable] = unsafe { slice::from_raw_parts(tables, count) };
        let tree = tables.iter().find(|entry| entry.vendor_guid == DEVICE_TREE)?;
        NonNull::new(tree.vendor_table.cast())
    }

    /// Zeroed memory, whole pages of it, that the firmware knows as the application's and that stays.
    pub fn allocate(&self, bytes: usize) -> Result<&'static mut [u8], EfiError> {
        let none = EfiError::NoMemory(bytes as u64);
        let whole = bytes.max(1).checked_next_multiple_of(PAGE_BYTES as usize).ok_or(none)?;
        let mut address = 0;
        // SAFETY: a boot service, called as it is declared.
        let status = unsafe {
            (self.boot.allocate_pages)(
                AllocateType::ANY_PAGES,
                MemoryType::LOADER_DATA,
                whole / PAGE_BYTES as usize,
                &raw mut address,
            )
        };
        let start = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(address as usize));
        let Some(start) = start.filter(|_| status == Status::SUCCESS) else { return Err(none) };
        // SAFETY: `whole` bytes that the firmware has just given to this application alone; they are never given back,
        // and become RAM of EL2's when the boot services are left.
        unsafe {
            start.write_bytes(0, whole);
            Ok(slice::from_raw_parts_mut(start.as_ptr(), whole))
        }
    }

    /// The file of this name, in UCS-2 with a zero at its end, in the root folder of the volume that the application was
    /// started from: memory, and how much of it the file is.
    pub fn read_file(&self, name: &[u16]) -> Result<(&'static mut [u8], usize), EfiError> {
        let image: &LoadedImageProtocol = self.protocol(self.image, &LoadedImageProtocol::GUID)?;
        let volume: &SimpleFileSystemProtocol =
            self.protocol(image.device_handle, &SimpleFileSystemProtocol::GUID)?;
        let mut root = ptr::null_mut();
        // SAFETY: a function of the protocol, with the protocol it was found in.
        let status = unsafe { (volume.open_volume)(ptr::from_ref(volume).cast_mut(), &raw mut root) };
        let root = File::new(root, status).map_err(EfiError::NoVolume)?;
        let file = root.open(name).map_err(EfiError::NoBundle)?;
        let bytes = file.size().map_err(EfiError::Read)?;
        let length = usize::try_from(bytes).map_err(|_| EfiError::NoMemory(bytes))?;
        let memory = self.allocate(length)?;
        file.read(memory.get_mut(..length).unwrap_or_default()).map_err(EfiError::Read)?;
        Ok((memory, length))
    }

    /// An interface of `handle`.
    fn protocol<T>(&self, handle: Handle, guid: &Guid) -> Result<&'a T, EfiError> {
        let mut interface: *mut c_void = ptr::null_mut();
        // SAFETY: a boot service, called as it is declared.
        let status = unsafe { (self.boot.handle_protocol)(handle, guid, &raw mut interface) };
        // SAFETY: the firmware says that an interface of this kind is there; it stays as long as its device does.
        let found = unsafe { interface.cast::<T>().as_ref() };
        found.filter(|_| status == Status::SUCCESS).ok_or(EfiError::NoVolume(status))
    }

    /// Leaves the boot services. From here on the firmware is gone: memory it does not keep is ours.
    ///
    /// After a failure, too, most of it is: all that can be done is to tell, and to return.
    pub fn leave(&self) -> Result<MemoryMap, EfiError> {
        let mut look = MapLook::default();
        // Too small on purpose: the firmware says how much is needed.
        let _too_small = self.memory_map(&mut [], &mut look);
        let slack = MAP_SLACK.saturating_mul(look.stride);
        let memory = self.allocate(look.bytes.saturating_add(slack))?;
        let mut status = Status::ABORTED;
        for _ in 0..EXIT_TRIES {
            status = self.memory_map(memory, &mut look);
            if status != Status::SUCCESS {
                break;
            }
            // SAFETY: a boot service, called as it is declared; nothing of the firmware's is used after it, the console
            // apart where this fails.
            status = unsafe { (self.boot.exit_boot_services)(self.image, look.key) };
            if status == Status::SUCCESS {
                let bytes = memory.get(..look.bytes).unwrap_or_default();
                return Ok(MemoryMap { bytes, stride: look.stride });
            }
        }
        Err(EfiError::Exit(status))
    }

    fn memory_map(&self, memory: &mut [u8], look: &mut MapLook) -> Status {
        look.bytes = memory.len();
        let mut version = 0;
        // SAFETY: a boot service, called as it is declared, with as many bytes as it is told; memory from the firmware is
        // aligned to pages.
        unsafe {
            (self.boot.get_memory_map)(
                &raw mut look.bytes,
                memory.as_mut_ptr().cast(),
                &raw mut look.key,
                &raw mut look.stride,
                &raw mut version,
            )
        }
    }
}

/// What a look at the map gives beside the map.
#[derive(Default)]
struct MapLook {
    bytes: usize,
    key: usize,
    /// Bytes from one descriptor to the next: firmware may have larger ones than the specification.
    stride: usize,
}

impl MemoryMap {
    /// Its descriptors, in no order.
    pub fn descriptors(self) -> impl Iterator<Item = MemoryDescriptor> + Clone {
        self.bytes.chunks_exact(self.stride.max(size_of::<MemoryDescriptor>())).map(|chunk| {
            // SAFETY: as many bytes as a descriptor has; every pattern of bits is one; read without alignment.
            unsafe { chunk.as_ptr().cast::<MemoryDescriptor>().read_unaligned() }
        })
    }
}

/// An open file, closed when it is dropped.
struct File(NonNull<FileProtocolV1>);

impl File {
    /// What a call that opens something gave.
    fn new(file: *mut FileProtocolV1, status: Status) -> Result<Self, Status> {
        NonNull::new(file).filter(|_| status == Status::SUCCESS).map(Self).ok_or(status)
    }

    fn protocol(&self) -> &FileProtocolV1 {
        // SAFETY: the firmware has given this file, and keeps it until it is closed, which dropping it does.
        unsafe { self.0.as_ref() }
    }

    fn open(&self, name: &[u16]) -> Result<Self, Status> {
        let mut file = ptr::null_mut();
        // SAFETY: a function of the file's own; the name ends with a zero.
        let status = unsafe {
            (self.protocol().open)(
                self.0.as_ptr(),
                &raw mut file,
                name.as_ptr(),
                FileMode::READ,
                FileAttribute::empty(),
            )
        };
        Self::new(file, status)
    }

    fn size(&self) -> Result<u64, Status> {
        let mut size = 0;
        self.seek(END_OF_FILE)?;
        // SAFETY: a function of the file's own, called as it is declared.
        let status = unsafe { (self.protocol().get_position)(self.0.as_ptr(), &raw mut size) };
        self.seek(0)?;
        if status == Status::SUCCESS { Ok(size) } else { Err(status) }
    }

    fn seek(&self, position: u64) -> Result<(), Status> {
        // SAFETY: a function of the file's own, called as it is declared.
        let status = unsafe { (self.protocol().set_position)(self.0.as_ptr(), position) };
        if status == Status::SUCCESS { Ok(()) } else { Err(status) }
    }

    /// Reads all of `memory`, in as many pieces as the firmware likes.
    fn read(&self, memory: &mut [u8]) -> Result<(), Status> {
        let mut rest = memory;
        while !rest.is_empty() {
            let mut bytes = rest.len();
            // SAFETY: a function of the file's own; it is told how much room there is.
            let status =
                unsafe { (self.protocol().read)(self.0.as_ptr(), &raw mut bytes, rest.as_mut_ptr().cast()) };
            if status != Status::SUCCESS {
                return Err(status);
            }
            // Nothing more is the end, before where it should be.
            let (1.., Some((_, left))) = (bytes, rest.split_at_mut_checked(bytes)) else {
                return Err(Status::END_OF_FILE);
            };
            rest = left;
        }
        Ok(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: a function of the file's own; it is closed once. Closing always succeeds.
        let _ = unsafe { (self.protocol().close)(self.0.as_ptr()) };
    }
}

/// UCS-2 code units printed at once.
const LINE: usize = 64;

/// The firmware's console.
struct Console<'a> {
    table: &'a SystemTable,
    line: ArrayVec<u16, { LINE + 1 }>,
}

impl fmt::Write for Console<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for piece in s.as_bytes().chunks(LINE) {
            self.line.clear();
            // EL2's lines are ASCII.
            self.line.extend(piece.iter().map(|byte| u16::from(*byte)));
            self.line.push(0);
            let stdout = NonNull::new(self.table.stdout).ok_or(fmt::Error)?;
            // SAFETY: the firmware's console, with a string that ends with a zero.
            let _status = unsafe { (stdout.as_ref().output_string)(stdout.as_ptr(), self.line.as_ptr()) };
        }
        Ok(())
    }
}
