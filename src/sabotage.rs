//! Faults that the project's tests build into an image to see that they are found, one at a time, by the
//! environment variable `STRANDLINE_SABOTAGE` of the build. In any other build all of them are `false`.

/// No invalidation of the CPU view after a clean.
pub const NO_INVALIDATION: bool = cfg!(sabotage = "no_invalidation");
/// The last page of a synced range is left out of the bitmap.
pub const ONE_PAGE_TOO_FEW: bool = cfg!(sabotage = "one_page_too_few");
/// The page behind each dirty one is reported as well.
pub const ONE_PAGE_TOO_MANY: bool = cfg!(sabotage = "one_page_too_many");
/// A start leaves the blocks of the CPU view.
pub const NO_CPU_SPLIT: bool = cfg!(sabotage = "no_cpu_split");
/// A start leaves the blocks of the DMA views.
pub const NO_DMA_SPLIT: bool = cfg!(sabotage = "no_dma_split");
/// A page that was read is compared with what the last sync found, not with what was delivered.
pub const DIGEST_OF_THE_SYNC: bool = cfg!(sabotage = "digest_of_the_sync");
/// A start ends with two invalidations of each DMA view.
pub const SECOND_VMALL: bool = cfg!(sabotage = "second_vmall");

/// The fault that is built in, for the image's banner.
pub const NAME: Option<&str> = option_env!("STRANDLINE_SABOTAGE");
