//! Global errors (IHI 0070 §6.3.19, §7.5): what the SMMU reports by register, not by record.

use bitflags::bitflags;

bitflags! {
    /// SMMU_GERROR, one bit for each error; unknown bits are kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct GlobalErrors: u32 {
        /// CMDQ_ERR: a command was not consumed; the queue stands still.
        const COMMAND_QUEUE = 1 << 0;
        /// EVENTQ_ABT_ERR: a record could not be written; some are lost, and those in the queue may be invalid.
        const EVENT_QUEUE_ABORT = 1 << 2;
        /// PRIQ_ABT_ERR: a page request could not be written.
        const PRI_QUEUE_ABORT = 1 << 3;
        /// MSI_CMDQ_ABT_ERR: the message of a CMD_SYNC aborted.
        const SYNC_MSI_ABORT = 1 << 4;
        /// MSI_EVENTQ_ABT_ERR: the Event queue's message aborted.
        const EVENT_QUEUE_MSI_ABORT = 1 << 5;
        /// MSI_PRIQ_ABT_ERR: the PRI queue's message aborted.
        const PRI_QUEUE_MSI_ABORT = 1 << 6;
        /// MSI_GERROR_ABT_ERR: a global error's message aborted.
        const GLOBAL_ERROR_MSI_ABORT = 1 << 7;
        /// SFM_ERR: Service failure mode. Traffic, commands and events have stopped for good; acknowledging it
        /// changes nothing (§12.3).
        const SERVICE_FAILURE = 1 << 8;
        /// CMDQP_ERR: an error on an enhanced command queue.
        const COMMAND_QUEUE_PAGE = 1 << 9;
        /// DPT_ERR: a device permission table look-up failed.
        const DEVICE_PERMISSION_TABLE = 1 << 10;
        const _ = !0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_where_section_6_3_19_puts_them() {
        assert_eq!(GlobalErrors::COMMAND_QUEUE.bits(), 0x001);
        assert_eq!(GlobalErrors::EVENT_QUEUE_ABORT.bits(), 0x004);
        assert_eq!(GlobalErrors::PRI_QUEUE_ABORT.bits(), 0x008);
        assert_eq!(GlobalErrors::SYNC_MSI_ABORT.bits(), 0x010);
        assert_eq!(GlobalErrors::EVENT_QUEUE_MSI_ABORT.bits(), 0x020);
        assert_eq!(GlobalErrors::PRI_QUEUE_MSI_ABORT.bits(), 0x040);
        assert_eq!(GlobalErrors::GLOBAL_ERROR_MSI_ABORT.bits(), 0x080);
        assert_eq!(GlobalErrors::SERVICE_FAILURE.bits(), 0x100);
        assert_eq!(GlobalErrors::COMMAND_QUEUE_PAGE.bits(), 0x200);
        assert_eq!(GlobalErrors::DEVICE_PERMISSION_TABLE.bits(), 0x400);
    }
}
