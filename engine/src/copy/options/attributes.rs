//! What is kept of a file beside its bytes.

/// What is kept of a file beside its bytes.
///
/// The default is that of `ucp SOURCE… TARGET`: permission bits and times.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Preserve {
    /// Which permissions a copy gets.
    pub mode: KeepMode,
    /// Whether owner and group are kept, as far as the process may give files away.
    pub ownership: bool,
    /// Whether the times of last reading and writing are kept.
    pub timestamps: bool,
    /// Whether names of one file become names of one copy.
    pub links: bool,
    /// Whether extended attributes are kept, file capabilities among them.
    pub attributes: Keep,
    /// What becomes of the security context of SELinux.
    pub context: Context,
    /// Whether the user asked for what is kept. Then what can't be kept of a file is a failure, and
    /// what stood there before (a directory, a file written in place) is changed, too.
    pub is_asked: bool,
    /// Whether set-id bits and capabilities are kept even where the owner is not, as in GNU cp.
    /// They lend the rights of somebody who has not lent them.
    pub lends_rights: bool,
}

/// Which permissions a copy gets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeepMode {
    /// Those of its source, cut by the umask or by what the directory hands down, as any new file;
    /// what exists keeps its own.
    Cut,
    /// Those of any new file, whatever its source has (`--no-preserve=mode`).
    Fresh,
    /// The bits of its source.
    #[default]
    Bits,
    /// The bits of its source and its access control lists, and none that the directory hands down.
    Lists,
}

/// How much it matters that something is kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Keep {
    /// It is not.
    #[default]
    No,
    /// It is where that is possible, and nothing is said where not (`-a`).
    Silently,
    /// It is where that is possible, with a warning where not (`--preserve=all`).
    Desired,
    /// What can't be kept is a failure (`--preserve=xattr`).
    Required,
}

/// What becomes of the security context of SELinux.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Context {
    /// Nobody asked: the source's goes with its other extended attributes, where those are kept.
    #[default]
    AsAttributes,
    /// What the kernel gives new files, whatever else is kept of their sources (`-Z`).
    Fresh,
    /// The source's.
    Keep(Keep),
    /// This one.
    Set(Vec<u8>),
}

impl Default for Preserve {
    fn default() -> Self {
        Self {
            mode: KeepMode::default(),
            ownership: false,
            timestamps: true,
            links: false,
            attributes: Keep::default(),
            context: Context::default(),
            is_asked: false,
            lends_rights: false,
        }
    }
}

impl Preserve {
    /// What GNU cp keeps if nothing is asked for: new files have their source's mode, cut.
    #[must_use]
    pub fn as_cp() -> Self {
        Self {
            mode: KeepMode::Cut,
            timestamps: false,
            is_asked: true,
            lends_rights: true,
            ..Self::default()
        }
    }

    /// Whether a source must be asked which extended attributes it has.
    pub(crate) fn wants_attributes(&self) -> bool {
        self.mode == KeepMode::Lists
            || self.attributes != Keep::No
            || matches!(self.context, Context::Keep(_))
    }
}
