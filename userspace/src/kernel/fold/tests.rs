use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use fastrand::Rng;

use super::*;

/// Where the numbers of these tests lie.
const NUMBERS_AT: u64 = 0x1_0000_0000;
const NUMBERS: [u64; 6] = [0, 1, 96, 1264, 40_000, 0xee_6b28_0000];

/// A helper without arguments.
const CLOCK: i32 = BPF_FUNC_ktime_get_ns as i32;

fn numbers() -> Vec<u8> {
    NUMBERS.iter().flat_map(|one| one.to_le_bytes()).collect()
}

fn wide(register: u8, value: u64) -> [Instruction; 2] {
    let register = usize::from(register);
    [
        immediate(WIDE, register, value as u32),
        immediate(SECOND, 0, (value >> 32) as u32),
    ]
}

fn two(code: u8, to: u8, from: u8, offset: i16) -> Instruction {
    let [low, high] = offset.to_le_bytes();
    [code, from << 4 | to, low, high, 0, 0, 0, 0]
}

/// The same code, with its numbers folded.
fn folded(code: &[Instruction], addresses: &[(usize, usize)]) -> Vec<Instruction> {
    let numbers = numbers();
    let addresses = addresses
        .iter()
        .map(|&(at, number)| (at, &numbers[number * 8..][..8]));
    let mut folded = Code::new(code.to_vec(), addresses.collect());
    folded.fold();
    folded.instructions
}

/// The same, without what does nothing.
fn left(code: &[Instruction], addresses: &[(usize, usize)]) -> Vec<Instruction> {
    let mut left = folded(code, addresses);
    left.retain(|one| *one != NOTHING);
    left
}

/// What a program does: what it stores where, and what it returns.
#[derive(Debug, PartialEq, Eq, Default)]
struct Done {
    stores: Vec<(u64, u64)>,
    returns: Option<u64>,
}

/// Runs a program of the instructions that [`random`] writes. Memory holds the
/// numbers, and elsewhere what its address says.
fn run(code: &[Instruction], arguments: u64) -> Done {
    let mut done = Done::default();
    let mut registers: [u64; 11] = std::array::from_fn(|register| arguments << 8 | register as u64);
    let mut at = 0;
    loop {
        let one = code[at];
        let (to, from) = super::registers(one);
        let address = registers[from].wrapping_add_signed(offset(one).into());
        at += 1;
        match one[0] {
            WIDE => {
                let high = u64::from(number(code[at]).cast_unsigned());
                registers[to] = u64::from(number(one).cast_unsigned()) | high << 32;
                at += 1;
            }
            MOVE => registers[to] = i64::from(number(one)).cast_unsigned(),
            COPY => registers[to] = registers[from],
            ADD => registers[to] = registers[to].wrapping_add_signed(number(one).into()),
            ADD_REGISTER => registers[to] = registers[to].wrapping_add(registers[from]),
            // *(u64 *)(to + offset) = from
            0x7b => {
                let address = registers[to].wrapping_add_signed(offset(one).into());
                done.stores.push((address, registers[from]));
            }
            // if to != number
            0x55 if registers[to] == i64::from(number(one)).cast_unsigned() => {}
            0x55 | JUMP => at = at.checked_add_signed(offset(one).into()).unwrap(),
            // if *(to + offset) == r0 { *(to + offset) = from }; r0 = what was there
            0xdb => {
                let address = registers[to].wrapping_add_signed(offset(one).into());
                done.stores.push((address, registers[from] ^ registers[0]));
                registers[0] = memory(address);
            }
            // A helper's result is of what it is given, but for the clock's.
            CALL => {
                let given = if number(one) == CLOCK { 1..1 } else { 1..6 };
                let mut hasher = DefaultHasher::new();
                registers[given].hash(&mut hasher);
                let result = hasher.finish();
                registers[0] = result;
                registers[1..6].fill(!result);
            }
            EXIT => {
                done.returns = Some(registers[0]);
                return done;
            }
            _ => {
                let width = width(one).unwrap_or_else(|| panic!("{one:x?}"));
                registers[to] = memory(address) & (u64::MAX >> (64 - width * 8));
            }
        }
    }
}

fn memory(address: u64) -> u64 {
    let numbers = numbers();
    let inside = address
        .checked_sub(NUMBERS_AT)
        .and_then(|at| numbers.get(at as usize..));
    if let Some(bytes) = inside.filter(|bytes| !bytes.is_empty()) {
        let mut wide = [0; 8];
        let length = bytes.len().min(8);
        wide[..length].copy_from_slice(&bytes[..length]);
        return u64::from_le_bytes(wide);
    }
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    hasher.finish()
}

/// Random code, and which of its instructions have the address of which number.
fn random(rng: &mut Rng) -> (Vec<Instruction>, Vec<(usize, usize)>) {
    let (mut code, mut addresses, mut jumps) = (Vec::new(), Vec::new(), Vec::new());
    // Few registers, so that they meet.
    let register = |rng: &mut Rng| rng.u8(0..4);
    let load = |rng: &mut Rng| *rng.choice(&[0x61, 0x69, 0x71, 0x79]).unwrap();
    for _ in 0..rng.usize(1..40) {
        let (to, from) = (register(rng), register(rng));
        match rng.u8(0..13) {
            // As a program reads a number.
            0..4 => {
                let number = rng.usize(..NUMBERS.len());
                addresses.push((code.len(), number));
                code.extend(wide(to, NUMBERS_AT + number as u64 * 8));
                if rng.u8(..8) > 0 {
                    let place = if rng.bool() { to } else { from };
                    code.push(two(0x79, place, to, 0));
                }
            }
            // As it reads a field.
            4..6 => {
                let base = register(rng);
                code.push(two(COPY, to, base, 0));
                code.push(two(ADD_REGISTER, to, from, 0));
                code.push(two(load(rng), register(rng), to, rng.i16(-8..9)));
            }
            6 => code.push(two(load(rng), to, from, rng.i16(0..9))),
            7 => code.push(two(ADD_REGISTER, to, from, 0)),
            8 => code.push(two(COPY, to, from, 0)),
            9 => code.push(two(0x7b, to, from, rng.i16(-8..9))),
            10 => code.push(two(0xdb, to, from, rng.i16(-8..9))),
            11 => {
                let helper = if rng.bool() { CLOCK } else { 1 };
                code.push(immediate(CALL, 0, helper.cast_unsigned()));
            }
            _ => {
                jumps.push(code.len());
                let jump = *rng.choice(&[0x55, JUMP]).unwrap();
                code.push(two(jump, to, 0, 0));
            }
        }
    }
    code.push(immediate(EXIT, 0, 0));
    let starts: Vec<_> = (0..code.len())
        .filter(|at| *at == 0 || code[at - 1][0] != WIDE)
        .collect();
    for jump in jumps {
        let behind: Vec<_> = starts.iter().filter(|start| **start > jump).collect();
        let by = *rng.choice(behind).unwrap() - jump - 1;
        code[jump][2..4].copy_from_slice(&i16::try_from(by).unwrap().to_le_bytes());
    }
    (code, addresses)
}

#[test]
fn code_does_the_same_with_its_numbers_in_it() {
    let mut rng = Rng::with_seed(6);
    let mut shorter = 0;
    for turn in 0..50_000 {
        let (code, addresses) = random(&mut rng);
        let after = folded(&code, &addresses);
        assert_eq!(after.len(), code.len());
        for arguments in [1, turn] {
            let (was, is) = (run(&code, arguments), run(&after, arguments));
            assert_eq!(is, was, "{turn}: {code:x?}\n{after:x?}");
        }
        let idle = |code: &[Instruction]| code.iter().filter(|one| **one == NOTHING).count();
        shorter += usize::from(idle(&after) > idle(&code));
    }
    assert!(shorter > 20_000, "{shorter}");
}

#[test]
fn a_field_is_one_load() {
    let [address, second] = wide(1, NUMBERS_AT);
    let code = [
        address,
        second,
        two(0x79, 1, 1, 0),
        two(COPY, 2, 7, 0),
        two(ADD_REGISTER, 2, 1, 0),
        two(0x61, 2, 2, 0),
        two(COPY, 0, 2, 0),
        immediate(EXIT, 0, 0),
    ];
    let after = left(&code, &[(0, 3)]);
    let load = two(0x61, 2, 7, 1264);
    assert_eq!(after, [load, code[6], code[7]]);
}

/// Before a call that takes nothing, and a store, nobody needs what they could read.
#[test]
fn a_field_is_one_load_before_a_call_and_a_store() {
    let [address, second] = wide(2, NUMBERS_AT);
    let code = [
        address,
        second,
        two(0x79, 2, 2, 0),
        two(COPY, 3, 7, 0),
        two(ADD_REGISTER, 3, 2, 0),
        two(0x79, 0, 3, 0),
        two(0x7b, 10, 0, -8),
        immediate(CALL, 0, CLOCK.cast_unsigned()),
        immediate(EXIT, 0, 0),
    ];
    let after = left(&code, &[(0, 3)]);
    let load = two(0x79, 0, 7, 1264);
    assert_eq!(after, [load, code[6], code[7], code[8]]);
}

#[test]
fn offsets_that_do_not_fit_are_added() {
    let [address, second] = wide(1, NUMBERS_AT);
    let code = [
        address,
        second,
        two(0x79, 1, 1, 0),
        two(ADD_REGISTER, 7, 1, 0),
        two(0x79, 0, 7, 0),
        immediate(EXIT, 0, 0),
    ];
    let after = left(&code, &[(0, 4)]);
    assert_eq!(after, [immediate(ADD, 7, 40_000), code[4], code[5]]);
}

/// A load that is also jumped to, with another address in its register.
#[test]
fn what_is_jumped_to_is_left_as_it_is() {
    let [address, second] = wide(1, NUMBERS_AT);
    let code = [
        two(0x55, 2, 0, 2),
        address,
        second,
        two(0x79, 1, 1, 0),
        two(COPY, 0, 1, 0),
        immediate(EXIT, 0, 0),
    ];
    assert_eq!(folded(&code, &[(1, 3)]), code);
}
