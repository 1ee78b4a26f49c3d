//! Constants that know their own name and text, so that the C header can be generated from them.

/// Which part of the generated header a constant belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Limits and sizes.
    Limit,
    /// SMCCC function identifiers.
    Call,
    /// Negative status codes.
    Error,
    /// Bits and fields of arguments and results.
    Flag,
    /// Reasons for which a vCPU run ended.
    Exit,
    /// Identifiers of vCPU registers.
    Register,
    /// Indices of statistics counters.
    Statistic,
}

/// One constant of the interface.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Where it belongs.
    pub section: Section,
    /// Its name without prefix, in upper case.
    pub name: &'static str,
    /// Its value. Status codes are negative, all others are not.
    pub value: i64,
    /// Its documentation, one line.
    pub doc: &'static str,
}

/// Defines `pub const` integers together with the table that describes them.
macro_rules! items {
    ($section:ident: $ty:ty; $( #[doc = $doc:literal] $name:ident = $value:expr; )*) => {
        $( #[doc = $doc] pub const $name: $ty = $value; )*
        /// The constants of this module, for the generated C header.
        pub const ITEMS: &[$crate::Item] = &[ $( $crate::Item {
            section: $crate::Section::$section,
            name: stringify!($name),
            value: $name as i64,
            doc: $doc,
        } ),* ];
    };
}
pub(crate) use items;
