//! How a copy starts operations: with retries in one place, errors that name what failed, and
//! cancellation between any two steps.

use super::Cancellation;
use super::rehearsal::touches_nothing;
use crate::buffer::Buffer;
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::RETRIES_MAX;
use crate::operation::{
    File, FileStatus, Name, Open, Operation, OperationError, Place, Statx, Subject, Unlink,
};
use crate::proactor::TaskInitiator;

/// Starts operations for a copy.
#[derive(Clone)]
pub(crate) struct Io {
    pub(crate) tasks: TaskInitiator,
    pub(crate) cancellation: Cancellation,
    /// Whether what would touch anything is refused.
    pub(crate) is_rehearsal: bool,
}

impl Io {
    /// Performs an operation, unless the copy was cancelled.
    pub(crate) async fn perform(&self, operation: Operation) -> Result<Operation, Error> {
        self.check()?;
        self.perform_always(operation).await
    }

    /// Performs an operation even if the copy was cancelled: to clean up.
    ///
    /// What the kernel asks to be tried again is, but for a lock that another has, and a sync or a
    /// flush: what it could not write counts as written afterwards, so that a second one proves
    /// nothing.
    pub(crate) async fn perform_always(
        &self,
        mut operation: Operation,
    ) -> Result<Operation, Error> {
        match self.perform_inline(&mut operation) {
            Some(result) => result.map(|_| operation),
            None => {
                let (result, operation) = self.wait_for(operation).await;
                result.map(|_| operation)
            }
        }
    }

    /// The same, with the operation's number.
    pub(crate) async fn perform_counted(
        &self,
        mut operation: Operation,
    ) -> Result<(u32, Operation), Error> {
        match self.perform_inline(&mut operation) {
            Some(result) => result.map(|number| (number, operation)),
            None => {
                let (result, operation) = self.wait_for(operation).await;
                result.map(|number| (number, operation))
            }
        }
    }

    /// The same; what the operation owns comes back even if it fails.
    pub(crate) async fn perform_and_return(
        &self,
        mut operation: Operation,
    ) -> (Result<u32, Error>, Operation) {
        match self.perform_inline(&mut operation) {
            Some(result) => (result, operation),
            None => self.wait_for(operation).await,
        }
    }

    /// Performs an operation at once, where the processor does so: with small files each step of a
    /// future counts.
    fn perform_inline(&self, operation: &mut Operation) -> Option<Result<u32, Error>> {
        if let Some(refused) = self.refuse(operation) {
            return Some(Err(refused));
        }
        let mut retries = 0;
        loop {
            let result = self.tasks.perform_inline(operation)?;
            if !is_to_be_retried(&result, operation, &mut retries) {
                return Some(named(result, operation));
            }
        }
    }

    async fn wait_for(&self, mut operation: Operation) -> (Result<u32, Error>, Operation) {
        let mut retries = 0;
        loop {
            let result;
            (result, operation) = self.tasks.perform(operation).await;
            if !is_to_be_retried(&result, &operation, &mut retries) {
                return (named(result, &operation), operation);
            }
        }
    }

    fn refuse(&self, operation: &Operation) -> Option<Error> {
        (self.is_rehearsal && !touches_nothing(operation)).then(|| {
            let reason = "a dry run touches nothing";
            Error::new(ErrorKind::Unsupported, operation.verb(), reason)
        })
    }

    /// Fails if the copy was cancelled.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.cancellation.is_cancelled() {
            return Err(cancelled());
        }
        Ok(())
    }

    pub(crate) async fn open(&self, open: Open) -> Result<File, Error> {
        match self.perform(Operation::Open(open)).await? {
            Operation::Open(Open { file: Some(file), .. }) => Ok(file),
            _ => Err(Error::from_errno("open", Errno::EBADF)),
        }
    }

    pub(crate) async fn status_of(&self, file: &File) -> Result<FileStatus, Error> {
        self.status(Subject::File(file.clone()), false).await
    }

    /// The status of a name; none if nothing stands there.
    pub(crate) async fn status_at(
        &self,
        place: Place,
        follow: bool,
    ) -> Result<Option<FileStatus>, Error> {
        match self.status(Subject::Place(place), follow).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The status of a file, or of a name itself, even if the copy was cancelled: to clean up.
    pub(crate) async fn status_always(&self, subject: Subject) -> Result<FileStatus, Error> {
        self.statx(subject, false).await
    }

    async fn status(&self, subject: Subject, follow: bool) -> Result<FileStatus, Error> {
        self.check()?;
        self.statx(subject, follow).await
    }

    async fn statx(&self, subject: Subject, follow: bool) -> Result<FileStatus, Error> {
        let statx = Statx { subject, follow, status: None };
        match self.perform_always(Operation::Statx(statx)).await? {
            Operation::Statx(Statx { status: Some(status), .. }) => Ok(*status),
            _ => Err(Error::from_errno("status", Errno::EIO)),
        }
    }

    /// Removes a name to clean up, and says whether it is gone. What stays is removed by a second
    /// run.
    pub(crate) async fn remove(&self, directory: &File, name: &Name, is_directory: bool) -> bool {
        let place = Place::at(directory, name);
        let unlink = Operation::Unlink(Unlink { place, is_directory });
        match self.perform_always(unlink).await {
            Ok(_) => true,
            Err(error) => error.errno() == Some(Errno::ENOENT),
        }
    }

    /// What a symbolic link says, whole.
    pub(crate) async fn read_link(&self, place: Place) -> Result<Name, Error> {
        use crate::operation::ReadLink;
        let link = ReadLink { place, buffer: Buffer::Vec(vec![0; 4097]) };
        self.check()?;
        let (length, operation) = self.perform_counted(Operation::ReadLink(link)).await?;
        let Operation::ReadLink(ReadLink { buffer, .. }) = operation else {
            return Err(Error::from_errno("read link", Errno::EIO));
        };
        let content = buffer.part(0, length).unwrap_or_default();
        Name::new(content).map_err(|errno| Error::from_errno("read link", errno))
    }
}

/// Whether the kernel wants an operation to be tried again, which this counts.
fn is_to_be_retried(
    result: &Result<u32, OperationError>,
    operation: &Operation,
    retries: &mut u32,
) -> bool {
    let Err(OperationError { errno: Errno::EINTR | Errno::EAGAIN, .. }) = result else {
        return false;
    };
    *retries += 1;
    *retries <= RETRIES_MAX
        && !matches!(operation, Operation::Lock(_) | Operation::Sync(_) | Operation::Flush(_))
}

fn named(result: Result<u32, OperationError>, operation: &Operation) -> Result<u32, Error> {
    result.map_err(|error| Error::from_errno(operation.verb(), error.errno))
}

/// What a cancelled copy fails with.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "copy", "interrupted")
}
