//! Settings: what the machine of one run can do, and the table of those that are tested.
//!
//! Sixteen IPA sizes (32, then 34 to 48: each start level with one root page, with several, and with
//! sixteen), and for each two machines that are opposites in everything that is on or off. The columns are the rows of a
//! Hadamard matrix, so that any three switches come up in all eight combinations.

use verdigris_stage2::Config;

/// What the machine of one run can do.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The size of the IPA space.
    pub ipa_bits: u32,
    /// VTCR_EL2.HA: the walker sets access flags.
    pub access_flag: bool,
    /// VTCR_EL2.HD: the walker sets the dirty state.
    pub dirty_state: bool,
    /// The size of a VMID: 3, 8 or 16.
    pub vmid_bits: u32,
    /// Pages in the VM's pool of tables.
    pub pool_pages: u64,
    /// What the engine is told.
    pub config: Config,
}

/// How many there are.
pub const COUNT: u32 = 32;

impl Settings {
    /// Returns the settings with a number below [`COUNT`].
    pub fn numbered(number: u32) -> Self {
        let (row, complement) = (number % 16, number >= 16);
        let on = |column: u32| ((row & column).count_ones() % 2 == 1) != complement;
        let dirty_state = on(1) && on(2);
        Self {
            ipa_bits: if row == 0 { 32 } else { 33 + row },
            access_flag: on(2),
            dirty_state,
            vmid_bits: if on(3) { 3 } else { [8, 16][usize::from(on(4))] },
            pool_pages: if on(5) { 14 } else { 48 },
            config: Config {
                fwb: on(6),
                tlb_range: on(7),
                ttl: on(8),
                repeat: on(9),
                dic: on(10),
                hd: dirty_state,
                bbm2: on(11),
                skip: on(12),
            },
        }
    }
}
