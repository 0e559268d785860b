//! Which interfaces of planes have their programs.

use super::{AttachedRead, Named};
use crate::planes::{
    attach::{Place, held, place, plane_of},
    interfaces,
    link::Direction,
    pins::Pins,
};

/// The interfaces of this network namespace that are a plane's.
///
/// # Errors
/// What the kernel says.
pub fn read(pins: &Pins, named: &Named) -> anyhow::Result<Vec<AttachedRead>> {
    let interfaces = interfaces::all()?;
    let held = held(pins)?;
    let linked = |index: u32, direction: Direction| {
        held.iter().any(|held| {
            (held.info.interface, held.info.direction) == (index, direction)
                && place(&held.info, &interfaces) == Place::Here
        })
    };
    let read = interfaces.iter().filter_map(|interface| {
        let plane = plane_of(&named.policy, &interface.name)?;
        let index = interface.index;
        let both = Direction::BOTH.into_iter().all(|way| linked(index, way));
        Some(AttachedRead {
            plane: plane.name.as_str().into(),
            mode: interface.xdp.filter(|_| both).map(|xdp| xdp.mode.as_str()),
            interface: interface.name.clone(),
        })
    });
    Ok(read.collect())
}
