//! The body of a scrape, which is compressed while it is written.
//!
//! What is written is handed over in pieces. As soon as there is more than one, a
//! thread compresses them while the next is written, so that a large scrape takes
//! the longer of the two times and not their sum. The pieces are used again, so room
//! is needed for what is sent and a few pieces, not for all that is written.

use std::{
    io, mem,
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread::{self, Scope, ScopedJoinHandle},
};

use super::{
    Encoding, Format,
    compress::{Compressor, WORTHWHILE},
    encode, write,
};
use crate::model::Family;

/// How many bytes are handed over at once: few enough for a processor's own cache,
/// enough that handing over costs nothing. No series is cut in text and no family
/// in protobuf, so a piece may be longer.
const PIECE: usize = 128 << 10;
/// Pieces that may wait for the compressing thread.
const WAITING: usize = 2;

/// What a scrape is answered.
#[derive(Debug)]
pub struct Body {
    /// The bytes that are sent.
    pub bytes: Vec<u8>,
    /// How they are coded: as was asked for, or as they are if that is not worth it.
    pub encoding: Encoding,
}

impl Body {
    /// Writes the families in the given format and compresses them. Those without
    /// series are left out.
    ///
    /// # Errors
    /// If the compressor fails, which it does only without memory.
    pub fn new(format: Format, encoding: Encoding, families: &[Family]) -> io::Result<Self> {
        if encoding == Encoding::Identity {
            let bytes = encode(format, families);
            return Ok(Self { bytes, encoding });
        }
        thread::scope(|scope| {
            let mut stage = None;
            let mut rest = Vec::new();
            write(format, families, &mut rest, &mut |written| {
                if written.len() < PIECE {
                    return Ok(());
                }
                let stage = match &mut stage {
                    Some(stage) => stage,
                    none => none.insert(Stage::new(scope, encoding)?),
                };
                *written = stage.take(mem::take(written))?;
                Ok(())
            })?;
            let mut stage = match stage {
                Some(stage) => stage,
                None if rest.len() < WORTHWHILE => {
                    let encoding = Encoding::Identity;
                    return Ok(Self {
                        bytes: rest,
                        encoding,
                    });
                }
                None => Stage::Here(Compressor::new(encoding)?),
            };
            stage.take(rest)?;
            let bytes = stage.finish()?;
            Ok(Self { bytes, encoding })
        })
    }
}

/// Where pieces are compressed.
enum Stage<'scope> {
    /// In a thread, while the next one is written.
    Beside {
        full: SyncSender<Vec<u8>>,
        empty: Receiver<Vec<u8>>,
        thread: ScopedJoinHandle<'scope, io::Result<Vec<u8>>>,
    },
    /// In the thread that writes them: there is one piece, or no other thread is to
    /// be had.
    Here(Compressor),
}

impl<'scope> Stage<'scope> {
    fn new<'env>(scope: &'scope Scope<'scope, 'env>, encoding: Encoding) -> io::Result<Self> {
        let (full, pieces) = sync_channel::<Vec<u8>>(WAITING);
        let (back, empty) = channel();
        let compress = move || {
            let mut compressor = Compressor::new(encoding)?;
            for mut piece in pieces {
                compressor.take(&piece)?;
                piece.clear();
                // Who writes the last piece waits for none.
                let _ = back.send(piece);
            }
            compressor.finish()
        };
        let name = "compress".to_owned();
        Ok(
            match thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, compress)
            {
                Ok(thread) => Self::Beside {
                    full,
                    empty,
                    thread,
                },
                Err(_) => Self::Here(Compressor::new(encoding)?),
            },
        )
    }

    /// Takes a piece, and gives an empty one for the next.
    fn take(&mut self, mut piece: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            // Where the thread has failed it is asked why at the end.
            Self::Beside { full, empty, .. } => {
                let _ = full.send(piece);
                Ok(empty.try_recv().unwrap_or_default())
            }
            Self::Here(compressor) => {
                compressor.take(&piece)?;
                piece.clear();
                Ok(piece)
            }
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Beside { full, thread, .. } => {
                drop(full);
                let panicked = |_| Err(io::Error::other("the compressing thread panicked"));
                thread.join().unwrap_or_else(panicked)
            }
            Self::Here(compressor) => compressor.finish(),
        }
    }
}
