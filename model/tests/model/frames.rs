//! Frames that come from a machine.

/// The methods of [`Frames`](strandline::frames::Frames), `free` apart, of something with a field `machine`: they are
/// the machine's.
macro_rules! frames_of_machine {
    () => {
        fn alloc(&self, order: u32) -> Option<strandline::frames::FrameBlock> {
            self.machine.alloc(order)
        }

        fn reserve(
            &self,
            count: usize,
        ) -> Result<strandline::frames::FrameReserve, strandline::frames::OutOfFrames> {
            self.machine.reserve(count)
        }

        fn take(
            &self,
            reserve: &mut strandline::frames::FrameReserve,
        ) -> Option<strandline::frames::FrameBlock> {
            self.machine.take(reserve)
        }

        fn unreserve(&self, reserve: strandline::frames::FrameReserve) {
            self.machine.unreserve(reserve);
        }

        fn free_frames(&self) -> usize {
            self.machine.free_frames()
        }
    };
}

pub(crate) use frames_of_machine;
