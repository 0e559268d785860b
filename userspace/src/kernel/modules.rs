//! Kernel modules: whether one is there, and its types.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use super::{
    btf::{Btf, BtfError},
    loader::Options,
    object::ObjectFile,
};

const MODULES: &str = "/sys/module";

/// One loading of a module: another after it was unloaded has another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loading(pub(crate) u64);

/// The module's present loading; `None`: it is not loaded, or just comes or
/// goes (`module_state` of include/linux/module.h).
pub fn loading(module: &str) -> Option<Loading> {
    loading_below(Path::new(MODULES), module)
}

fn loading_below(modules: &Path, module: &str) -> Option<Loading> {
    let folder = modules.join(module);
    // kernfs gives out inode numbers in turn, so a new loading has a new one.
    let number = fs::metadata(&folder).ok()?.ino();
    match fs::read_to_string(folder.join("initstate")) {
        Ok(state) if state.trim() != "live" => None,
        // What is built into the kernel has no state: it is always there.
        _ => Some(Loading(number)),
    }
}

/// Why a module is not there, and what to do.
pub fn absent_because(module: &str) -> String {
    if Path::new("/proc/modules").exists() {
        format!("the module {module} is not loaded: modprobe {module}")
    } else {
        format!("the module {module} cannot be loaded: this kernel has no modules")
    }
}

/// The types that an object's programs read fields of: the kernel's, and those
/// of its module, where the module has some.
pub(super) fn types(object: &ObjectFile, options: &Options) -> Result<Btf, BtfError> {
    let kernel = Btf::from_file(&options.btf)?;
    let Some(module) = object.module else {
        return Ok(kernel);
    };
    let path = options.module_btf.join(module);
    match Btf::from_module_file(&path, Arc::new(kernel)) {
        Err(BtfError::Unreadable { .. }) => Ok(Btf::from_file(&options.btf)?.without(module)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_there_when_it_is_live() {
        let sys = tempfile::tempdir().unwrap();
        let state = |state: &str| {
            fs::create_dir_all(sys.path().join("zfs")).unwrap();
            fs::write(sys.path().join("zfs/initstate"), state).unwrap();
            loading_below(sys.path(), "zfs")
        };
        assert_eq!(loading_below(sys.path(), "zfs"), None);
        assert_eq!(state("coming\n"), None);
        let first = state("live\n");
        assert!(first.is_some());
        assert_eq!(state("live\n"), first);
        assert_eq!(state("going\n"), None);
    }

    #[test]
    fn what_is_built_in_is_there() {
        let sys = tempfile::tempdir().unwrap();
        fs::create_dir(sys.path().join("wireguard")).unwrap();
        assert!(loading_below(sys.path(), "wireguard").is_some());
    }
}
