//! Memory that belongs to a task and goes with it.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_map_type},
    helpers::bpf_task_storage_get,
};

use crate::kernel::Typed;

/// aya-ebpf has no type for task storage: this is its definition in BTF, as
/// libbpf's `__uint` and `__type` macros would write it.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: placeholder pointers that the loader reads as types; nothing
// dereferences them.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    /// The definition of a map.
    #[expect(clippy::new_without_default, reason = "only a static is a map")]
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    /// The memory of a task. With BPF_LOCAL_STORAGE_GET_F_CREATE in `flags`
    /// it is made, of zeros, where there is none yet.
    #[inline(always)]
    pub fn get(&self, task: Typed, flags: u32) -> Option<*mut T> {
        // SAFETY: the verifier checks that it is a task.
        let value = unsafe {
            bpf_task_storage_get(
                ptr::from_ref(self).cast_mut().cast(),
                task.0.cast_mut().cast(),
                ptr::null_mut(),
                flags.into(),
            )
        };
        (!value.is_null()).then_some(value.cast())
    }
}
