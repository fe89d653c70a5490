//! The objects, their versions, and the recent history that watches read.
//!
//! One counter numbers all changes of all kinds, as etcd's revision does.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use tokio::time::Instant;

use super::failure::Failure;
use super::object::{self, Key, Object};
use super::resource::Resource;
use crate::clock;

/// One committed change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    /// The object before the change; `None` for a creation.
    pub(crate) before: Option<Object>,
    /// The object after the change; for a deletion, its last state.
    pub(crate) object: Object,
    pub(crate) deleted: bool,
}

/// The objects and the history of one kind.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) objects: BTreeMap<Key, Object>,
    history: VecDeque<Change>,
    /// resourceVersion of the newest change that the history no longer has.
    dropped: u64,
}

impl Shelf {
    /// Changes after a resourceVersion, oldest first; `None` if some of them are lost.
    pub(crate) fn since(&self, rv: u64) -> Option<impl Iterator<Item = &Change>> {
        (rv >= self.dropped).then(|| {
            let start = self.history.partition_point(|change| change.object.rv <= rv);
            self.history.range(start..)
        })
    }

    /// The oldest resourceVersion from which a watch can continue.
    pub(crate) fn oldest(&self) -> u64 {
        self.dropped
    }
}

/// The whole state of the API server.
#[derive(Debug)]
pub(crate) struct Store {
    rv: u64,
    /// New watches and continued lists may not start before this version.
    compacted: u64,
    uids: u64,
    history: usize,
    shelves: BTreeMap<Resource, Shelf>,
}

impl Store {
    pub(crate) fn new(history: usize) -> Self {
        Self {
            rv: 1,
            compacted: 0,
            uids: 0,
            history,
            shelves: Resource::ALL.into_iter().map(|resource| (resource, Shelf::default())).collect(),
        }
    }

    pub(crate) fn rv(&self) -> u64 {
        self.rv
    }

    pub(crate) fn shelf(&mut self, resource: Resource) -> &mut Shelf {
        self.shelves.entry(resource).or_default()
    }

    pub(crate) fn get(&mut self, resource: Resource, key: &Key) -> Result<Object, Failure> {
        self.shelf(resource).objects.get(key).cloned().ok_or_else(|| Failure::not_found(resource.as_str(), &key.1))
    }

    /// The oldest version from which a *new* watch or a continued list may start.
    pub(crate) fn oldest(&mut self, resource: Resource) -> u64 {
        self.shelf(resource).oldest().max(self.compacted)
    }

    /// Forgets the history: every version before now is too old.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.rv;
        for shelf in self.shelves.values_mut() {
            if let Some(last) = shelf.history.back() {
                shelf.dropped = last.object.rv;
            }
            shelf.history.clear();
        }
    }

    pub(crate) fn create(
        &mut self,
        resource: Resource,
        namespace: Option<&str>,
        mut value: Value,
    ) -> Result<Object, Failure> {
        if !value.is_object() {
            return Err(Failure::bad_request("the object is not a map"));
        }
        if resource.namespaced() {
            let named = object::namespace(&value).to_owned();
            let namespace = namespace.unwrap_or(if named.is_empty() { "default" } else { &named });
            if !named.is_empty() && named != namespace {
                return Err(Failure::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            object::set(&mut value, &["metadata", "namespace"], namespace.into());
        }
        self.uids += 1;
        if object::name(&value).is_empty() {
            let base = object::text(&value, &["metadata", "generateName"]).to_owned();
            if base.is_empty() {
                return Err(Failure::invalid(
                    resource.kind(),
                    "",
                    "metadata.name: Required value: name or generateName is required",
                ));
            }
            object::set(&mut value, &["metadata", "name"], format!("{base}{:05x}", self.uids).into());
        }
        let key = object::key(&value);
        if self.shelf(resource).objects.contains_key(&key) {
            return Err(Failure::already_exists(resource.as_str(), &key.1));
        }
        // Tests may set the uid of their own objects; a client may not, but none tries.
        if object::uid(&value).is_empty() {
            object::set(
                &mut value,
                &["metadata", "uid"],
                format!("00000000-0000-4000-8000-{:012x}", self.uids).into(),
            );
        }
        if object::text(&value, &["metadata", "creationTimestamp"]).is_empty() {
            object::set(&mut value, &["metadata", "creationTimestamp"], clock::now().into());
        }
        Ok(self.commit(resource, key, None, value))
    }

    /// Replaces an object by the result of `edit`. No difference means no change and no new version.
    pub(crate) fn edit(
        &mut self,
        resource: Resource,
        key: &Key,
        edit: impl FnOnce(&Value) -> Result<Value, Failure>,
    ) -> Result<Object, Failure> {
        let before = self.get(resource, key)?;
        let mut after = edit(&before.value)?;
        for field in ["name", "namespace", "uid", "creationTimestamp", "resourceVersion", "deletionTimestamp"] {
            let path = ["metadata", field];
            match object::at(&before.value, &path) {
                Some(old) => object::set(&mut after, &path, old.clone()),
                None => object::unset(&mut after, &path),
            }
        }
        for field in ["kind", "apiVersion"] {
            if let Some(old) = before.value.get(field) {
                object::set(&mut after, &[field], old.clone());
            }
        }
        if after == *before.value {
            return Ok(before);
        }
        Ok(self.commit(resource, key.clone(), Some(before), after))
    }

    /// Sets the deletion timestamp; the object stays until it is removed.
    pub(crate) fn mark_deleted(&mut self, resource: Resource, key: &Key, grace: u64) -> Result<Object, Failure> {
        let before = self.get(resource, key)?;
        if object::is_deleting(&before.value) {
            return Ok(before);
        }
        let mut after = (*before.value).clone();
        object::set(&mut after, &["metadata", "deletionTimestamp"], clock::now().into());
        object::set(&mut after, &["metadata", "deletionGracePeriodSeconds"], grace.into());
        Ok(self.commit(resource, key.clone(), Some(before), after))
    }

    pub(crate) fn remove(&mut self, resource: Resource, key: &Key) -> Result<Object, Failure> {
        let before = self.get(resource, key)?;
        self.rv += 1;
        let last = Object::new(resource, (*before.value).clone(), self.rv);
        self.shelf(resource).objects.remove(key);
        self.remember(
            resource,
            Change { at: Instant::now(), before: Some(before), object: last.clone(), deleted: true },
        );
        Ok(last)
    }

    fn commit(&mut self, resource: Resource, key: Key, before: Option<Object>, value: Value) -> Object {
        self.rv += 1;
        let object = Object::new(resource, value, self.rv);
        self.shelf(resource).objects.insert(key, object.clone());
        self.remember(resource, Change { at: Instant::now(), before, object: object.clone(), deleted: false });
        object
    }

    fn remember(&mut self, resource: Resource, change: Change) {
        let limit = self.history;
        let shelf = self.shelf(resource);
        shelf.history.push_back(change);
        while shelf.history.len() > limit {
            if let Some(old) = shelf.history.pop_front() {
                shelf.dropped = old.object.rv;
            }
        }
    }
}
