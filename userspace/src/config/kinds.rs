//! The types of values that are not plain numbers or text.

/// Memory for the kernel's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMemory {
    /// By the node's RAM: see [`super::Limits::map_memory_bytes`].
    Auto,
    /// So many bytes.
    Bytes(u64),
}

/// Types whose values are words of a closed set.
pub(super) trait Word: Copy + 'static {
    const ALL: &'static [(&'static str, Self)];
}

/// Makes an enum whose variants the file writes as words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$help:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$help])* $variant,)* }

        impl $name {
            /// The word in the file.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl Word for $name {
            const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)*];
        }
    };
}

words! {
    /// Importance of a log message.
    Level {
        /// Something failed.
        Error = "error",
        /// Something is lost or missing.
        Warn = "warn",
        /// What an operator wants to have read once.
        Info = "info",
        /// For finding faults.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// How log messages are written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// How log lines are written to Loki.
    LokiFormat {
        /// Protobuf, compressed by snappy.
        Protobuf = "protobuf",
        /// JSON, compressed by gzip.
        Json = "json",
    }
}

words! {
    /// How OTLP is spoken.
    OtlpProtocol {
        /// gRPC.
        Grpc = "grpc",
        /// Protobuf by HTTP/1.1.
        Http = "http",
    }
}

words! {
    /// What is pushed by OTLP.
    OtlpSignal {
        /// All metrics, again and again.
        Metrics = "metrics",
        /// Log lines and events.
        Logs = "logs",
        /// Spans of events that took time.
        Traces = "traces",
    }
}

words! {
    /// How what is pushed is compressed.
    Compression {
        /// By gzip.
        Gzip = "gzip",
        /// Not at all.
        None = "none",
    }
}

words! {
    /// Where a journal is begun that was never shipped.
    JournalSince {
        /// With what is written from now on.
        Now = "now",
        /// With the first line of this boot.
        Boot = "boot",
        /// With the oldest line.
        Oldest = "oldest",
    }
}

words! {
    /// Importance of a line of the journal, in the order of syslog's numbers,
    /// as journalctl names it.
    Priority {
        /// The system is unusable.
        Emerg = "emerg",
        /// Somebody must act at once.
        Alert = "alert",
        /// Critical.
        Crit = "crit",
        /// Something failed.
        Err = "err",
        /// Something may fail.
        Warning = "warning",
        /// Normal, but worth a look.
        Notice = "notice",
        /// As it should be.
        Info = "info",
        /// For finding faults.
        Debug = "debug",
    }
}

words! {
    /// A way to attach a program to the kernel, as `kldtrace doctor` names it.
    HookKind {
        /// BTF-typed raw tracepoint.
        TpBtf = "tp_btf",
        /// Raw tracepoint.
        RawTp = "raw_tp",
        /// Entry of a function of a kernel module, by trampoline.
        Fentry = "fentry",
        /// Return of a kernel function, by trampoline.
        Fexit = "fexit",
        /// Entry of a kernel function.
        Kprobe = "kprobe",
        /// Return of a kernel function.
        Kretprobe = "kretprobe",
        /// Cgroup hook on socket addresses.
        Cgroup = "cgroup",
    }
}
