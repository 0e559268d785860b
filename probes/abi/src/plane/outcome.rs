//! Verdicts, and where they come from.

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Action {
    /// It passes.
    Pass = 0,
    /// It is dropped.
    Drop = 1,
    /// It passes, as the plane's mode is `audit`, and would be dropped.
    WouldDrop = 2,
}

/// Why.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Reason {
    /// No rule matched.
    Default = 0,
    /// A rule matched.
    Rule = 1,
    /// A rule of the management floor matched.
    Floor = 2,
    /// It belongs to a flow that is known.
    Established = 3,
    /// It is of a kind that always passes.
    Always = 4,
    /// It is malformed.
    Malformed = 5,
    /// It is neither IP nor ARP.
    NotIp = 6,
    /// It is a part of a datagram, of which the plane takes none.
    Fragment = 7,
    /// Its source is on a block list.
    Blocked = 8,
    /// It goes from one plane to another without a rule for these two.
    Cross = 9,
    /// Its source sends too many.
    Rate = 10,
    /// There is no such plane in the policy.
    NoPlane = 11,
    /// The image is damaged.
    Image = 12,
    /// It is for a port of WireGuard, and none of its messages.
    WireGuard = 13,
}

impl Reason {
    /// All reasons, in order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Default,
        Self::Rule,
        Self::Floor,
        Self::Established,
        Self::Always,
        Self::Malformed,
        Self::NotIp,
        Self::Fragment,
        Self::Blocked,
        Self::Cross,
        Self::Rate,
        Self::NoPlane,
        Self::Image,
        Self::WireGuard,
    ];

    /// The value of the label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Rule => "rule",
            Self::Floor => "floor",
            Self::Established => "established",
            Self::Always => "always",
            Self::Malformed => "malformed",
            Self::NotIp => "not_ip",
            Self::Fragment => "fragment",
            Self::Blocked => "blocked",
            Self::Cross => "cross",
            Self::Rate => "rate",
            Self::NoPlane => "no_plane",
            Self::Image => "image",
            Self::WireGuard => "wireguard",
        }
    }

    /// That of a rule, by its number.
    #[inline(always)]
    pub(super) const fn of_rule(number: u8) -> Self {
        match number {
            0 => Self::Default,
            2 => Self::Floor,
            8 => Self::Blocked,
            _ => Self::Rule,
        }
    }
}

/// A bit of [`Outcome::limited`]: the plane's.
pub const PLANE_RATE: u8 = 1;
/// A bit of [`Outcome::limited`]: the rule's.
pub const RULE_RATE: u8 = 2;

/// A verdict, and where it comes from. 12 bytes without padding.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Outcome {
    /// What becomes of the packet.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// More about the reason: the [`Malformed`] or [`Always`] that it is.
    pub detail: u8,
    /// Whose rates packets like it count against: [`PLANE_RATE`] and
    /// [`RULE_RATE`].
    pub limited: u8,
    /// The rule, by its number in the policy; 0: none.
    pub rule: u32,
    /// Where that rule is counted; 0: it is not, the plane counts.
    pub counter: u32,
}

impl Default for Outcome {
    /// That of a damaged image.
    #[inline(always)]
    fn default() -> Self {
        Self::drop(Reason::Image)
    }
}

/// An [`Outcome`] in words: left to itself the compiler calls a function that
/// copies it byte by byte.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Words([u32; 3]);

impl Outcome {
    /// The same in words.
    #[inline(always)]
    pub(super) const fn words(self) -> Words {
        // SAFETY: of one size, without padding; any bytes are words.
        Words(unsafe { core::mem::transmute::<Self, [u32; 3]>(self) })
    }

    /// Becomes what was put in words.
    #[inline(always)]
    pub(super) const fn set(&mut self, words: &Words) {
        let Words([first, rule, counter]) = *words;
        let own = core::ptr::from_mut(self).cast::<u32>();
        // SAFETY: the first word of four bytes, of which the words were made
        // from an outcome or are the default, zeros, which every enum has.
        unsafe { *own = first };
        self.rule = rule;
        self.counter = counter;
    }

    #[inline(always)]
    const fn new(action: Action, reason: Reason) -> Self {
        Self {
            action,
            reason,
            detail: 0,
            limited: 0,
            rule: 0,
            counter: 0,
        }
    }

    #[inline(always)]
    pub(super) const fn pass(reason: Reason) -> Self {
        Self::new(Action::Pass, reason)
    }

    #[inline(always)]
    pub(super) const fn drop(reason: Reason) -> Self {
        Self::new(Action::Drop, reason)
    }

    #[inline(always)]
    pub(super) const fn detail(mut self, detail: u8) -> Self {
        self.detail = detail;
        self
    }

    #[inline(always)]
    pub(super) const fn limited(mut self, limited: u8) -> Self {
        self.limited = limited;
        self
    }

    #[inline(always)]
    pub(super) const fn by(mut self, rule: u32) -> Self {
        self.rule = rule;
        self
    }

    #[inline(always)]
    pub(super) const fn counted(mut self, counter: u32) -> Self {
        self.counter = counter;
        self
    }
}
