//! The immutable, versioned catalog. A change makes a new version; whoever holds the old one
//! keeps seeing it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::object::{Definer, IndexObject, Object, ObjectKind, ObjectName};
use crate::storage::manifest::FileRef;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// The database that exists from the start.
pub const DEFAULT_DATABASE: &str = "millstream";
/// The schema that exists in every database from the start.
pub const DEFAULT_SCHEMA: &str = "public";

/// One version of the catalog.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(super) version: u64,
    pub(super) next_id: u64,
    /// Database to its schemas.
    pub(super) databases: BTreeMap<String, Vec<String>>,
    pub(super) objects: BTreeMap<ObjectId, Arc<Object>>,
    pub(super) by_name: BTreeMap<ObjectName, ObjectId>,
    /// COMMENT ON of objects (`None`) and of their columns; they go with the object.
    pub(super) comments: BTreeMap<(ObjectId, Option<usize>), String>,
    /// Of objects that are planned again after a restart; they go with the object.
    pub(super) definers: BTreeMap<ObjectId, Arc<Definer>>,
    /// They go with their relation.
    pub(super) indexes: BTreeMap<ObjectId, Arc<IndexObject>>,
}

/// One step from a version to the next.
#[derive(Clone, Debug)]
pub enum Change {
    CreateDatabase(String),
    DropDatabase(String),
    CreateSchema {
        database: String,
        schema: String,
    },
    DropSchema {
        database: String,
        schema: String,
    },
    CreateObject(Arc<Object>),
    DropObject(ObjectId),
    /// Another definition of a view, with the same id and name.
    ReplaceView(Arc<Object>),
    /// COMMENT ON an object or its column; `None` takes the comment away.
    Comment {
        object: ObjectId,
        column: Option<usize>,
        text: Option<String>,
    },
    /// An index without an id gets the next one.
    CreateIndex(Arc<IndexObject>),
    DropIndex(ObjectId),
    /// Who made an object.
    Define {
        object: ObjectId,
        definer: Arc<Definer>,
    },
    /// A new table begins with the rows of these files. The catalog does not change.
    FillTable {
        object: ObjectId,
        files: Vec<FileRef>,
    },
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog {
            version: 0,
            next_id: 1,
            databases: BTreeMap::from([(
                DEFAULT_DATABASE.to_owned(),
                vec![DEFAULT_SCHEMA.to_owned()],
            )]),
            objects: BTreeMap::new(),
            by_name: BTreeMap::new(),
            comments: BTreeMap::new(),
            definers: BTreeMap::new(),
            indexes: BTreeMap::new(),
        }
    }
}

impl Catalog {
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The id that the next object will get.
    pub fn next_id(&self) -> ObjectId {
        ObjectId(self.next_id)
    }

    pub fn databases(&self) -> impl Iterator<Item = &str> {
        self.databases.keys().map(String::as_str)
    }

    /// The schemas of a database; `None` when there is no such database.
    pub fn schemas(&self, database: &str) -> Option<&[String]> {
        self.databases.get(database).map(Vec::as_slice)
    }

    /// All objects, oldest first.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    pub fn get(&self, id: ObjectId) -> Option<&Arc<Object>> {
        self.objects.get(&id)
    }

    pub fn lookup(&self, name: &ObjectName) -> Option<&Arc<Object>> {
        self.by_name.get(name).and_then(|id| self.objects.get(id))
    }

    /// Comments on an object (`None`) and its columns.
    pub fn comments(&self, id: ObjectId) -> impl Iterator<Item = (Option<usize>, &str)> {
        self.comments
            .range((id, None)..=(id, Some(usize::MAX)))
            .map(|((_, column), text)| (*column, text.as_str()))
    }

    /// The indexes of a relation that CREATE INDEX made.
    pub fn indexes_of(&self, relation: ObjectId) -> impl Iterator<Item = &Arc<IndexObject>> {
        self.indexes.values().filter(move |index| index.relation == relation)
    }

    pub fn index(&self, id: ObjectId) -> Option<&Arc<IndexObject>> {
        self.indexes.get(&id)
    }

    /// What reads an index in the place of its relation.
    pub fn readers_of_index(&self, id: ObjectId) -> impl Iterator<Item = &Arc<Object>> {
        let reads = move |definer: &Definer| definer.shares.contains(&id.0);
        let readers = self.definers.iter().filter(move |(_, definer)| reads(definer));
        readers.filter_map(|(object, _)| self.objects.get(object))
    }

    /// The index of that name, in the schema of its relation.
    pub fn lookup_index(&self, name: &ObjectName) -> Option<&Arc<IndexObject>> {
        self.indexes.values().find(|index| {
            let relation = self.objects.get(&index.relation);
            index.name == name.name
                && relation.is_some_and(|relation| {
                    relation.name.schema == name.schema && relation.name.database == name.database
                })
        })
    }

    /// Who made an object, where that counts.
    pub fn definer(&self, id: ObjectId) -> Option<&Arc<Definer>> {
        self.definers.get(&id)
    }

    /// The same version with only `ids` and what their definitions name, directly or through
    /// others: names in them mean what they meant when they were made.
    pub fn reduced_to(&self, ids: &[ObjectId]) -> Catalog {
        let mut kept = std::collections::BTreeSet::new();
        let mut open = ids.to_vec();
        while let Some(id) = open.pop() {
            if let Some(object) = self.objects.get(&id)
                && kept.insert(id)
            {
                open.extend(&object.depends_on);
            }
        }
        let mut reduced = self.clone();
        reduced.objects.retain(|id, _| kept.contains(id));
        reduced.by_name.retain(|_, id| kept.contains(id));
        reduced
    }

    /// The table that has the late rows of `id`.
    pub fn late_of(&self, id: ObjectId) -> Option<&Arc<Object>> {
        let is_late = |object: &&Arc<Object>| match &object.kind {
            ObjectKind::Table(table) => table.late_of == Some(id),
            _ => false,
        };
        self.objects.values().find(is_late)
    }

    /// The table that has the late rows of `id` which were taken in again.
    pub fn replayed_of(&self, id: ObjectId) -> Option<&Arc<Object>> {
        let is_replayed = |object: &&Arc<Object>| match &object.kind {
            ObjectKind::Table(table) => table.replayed_of == Some(id),
            _ => false,
        };
        self.objects.values().find(is_replayed)
    }

    /// The tables that go with `id`: of its late rows, and of those that were taken in again.
    pub fn parts_of(&self, id: ObjectId) -> Vec<ObjectId> {
        self.late_of(id).into_iter().chain(self.replayed_of(id)).map(|part| part.id).collect()
    }

    /// Objects that name `id` in their definition, directly, or a table of its late rows, which is
    /// a part of it.
    pub fn dependants(&self, id: ObjectId) -> impl Iterator<Item = &Arc<Object>> {
        let parts = self.parts_of(id);
        self.objects.values().filter(move |o| {
            let on_part = parts.iter().any(|part| o.depends_on.contains(part));
            (o.depends_on.contains(&id) || on_part) && !parts.contains(&o.id)
        })
    }

    /// `id` and everything that depends on it, dependants first: the order to drop in.
    pub fn drop_order(&self, id: ObjectId) -> Vec<ObjectId> {
        let mut order = Vec::new();
        self.collect_dependants(id, &mut order);
        order
    }

    fn collect_dependants(&self, id: ObjectId, order: &mut Vec<ObjectId>) {
        if order.contains(&id) {
            return;
        }
        for dependant in self.dependants(id) {
            self.collect_dependants(dependant.id, order);
        }
        for part in self.parts_of(id).into_iter().chain([id]) {
            if !order.contains(&part) {
                order.push(part);
            }
        }
    }

    /// The same version with some materialized views as plain views: their queries are expanded
    /// where they are used. For one statement, never published.
    pub fn with_views_inlined(&self, ids: &[ObjectId]) -> Catalog {
        let mut inlined = self.clone();
        for id in ids {
            let Some(object) = inlined.objects.get_mut(id) else { continue };
            if let ObjectKind::MaterializedView(view) = &object.kind {
                let kind = ObjectKind::View(view.clone());
                *object = Arc::new(Object { kind, ..object.as_ref().clone() });
            }
        }
        inlined
    }

    /// The next version.
    ///
    /// # Errors
    /// When a name is taken, or what is dropped does not exist or is still needed.
    pub fn apply(&self, changes: &[Change]) -> Result<Catalog> {
        let mut next = self.clone();
        next.version += 1;
        for change in changes {
            next.apply_one(change)?;
        }
        Ok(next)
    }

    fn apply_one(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::CreateDatabase(name) => {
                if self.databases.contains_key(name) {
                    return Err(Error::user(
                        SqlState::DUPLICATE_DATABASE,
                        format!("database \"{name}\" already exists"),
                    ));
                }
                self.databases.insert(name.clone(), vec![DEFAULT_SCHEMA.to_owned()]);
            }
            Change::DropDatabase(name) => {
                if self.databases.remove(name).is_none() {
                    return Err(no_database(name));
                }
                assert!(
                    self.by_name.keys().all(|n| n.database != *name),
                    "the objects of a database are dropped before it"
                );
            }
            Change::CreateSchema { database, schema } => {
                let schemas =
                    self.databases.get_mut(database).ok_or_else(|| no_database(database))?;
                if schemas.contains(schema) {
                    return Err(Error::user(
                        SqlState::DUPLICATE_SCHEMA,
                        format!("schema \"{schema}\" already exists"),
                    ));
                }
                schemas.push(schema.clone());
            }
            Change::DropSchema { database, schema } => {
                let schemas =
                    self.databases.get_mut(database).ok_or_else(|| no_database(database))?;
                let Some(index) = schemas.iter().position(|s| s == schema) else {
                    return Err(no_schema(schema));
                };
                schemas.remove(index);
            }
            Change::CreateObject(object) => {
                let name = &object.name;
                let schemas = self
                    .databases
                    .get(&name.database)
                    .ok_or_else(|| no_database(&name.database))?;
                if !schemas.contains(&name.schema) {
                    return Err(no_schema(&name.schema));
                }
                if self.by_name.contains_key(name) || self.lookup_index(name).is_some() {
                    return Err(Error::user(
                        SqlState::DUPLICATE_TABLE,
                        format!("relation \"{}\" already exists", name.name),
                    ));
                }
                assert!(!self.objects.contains_key(&object.id), "object ids are never reused");
                self.next_id = self.next_id.max(object.id.0 + 1);
                self.by_name.insert(name.clone(), object.id);
                self.objects.insert(object.id, object.clone());
            }
            Change::DropObject(id) => {
                let object = self.objects.remove(id).ok_or_else(|| {
                    Error::user(
                        SqlState::UNDEFINED_TABLE,
                        "the relation has been dropped meanwhile",
                    )
                })?;
                self.by_name.remove(&object.name);
                self.comments.retain(|(object, _), _| object != id);
                self.definers.remove(id);
                self.indexes.retain(|_, index| index.relation != *id);
                if let Some(dependant) = self.dependants(*id).next() {
                    return Err(Error::internal(format!(
                        "{} is dropped before its dependant {}",
                        object.name.name, dependant.name.name
                    )));
                }
            }
            Change::ReplaceView(object) => {
                let old = self.objects.get(&object.id);
                if old.is_none_or(|old| old.name != object.name) {
                    return Err(Error::internal(format!(
                        "replaced view {} is not in the catalog",
                        object.name.name
                    )));
                }
                if let Some(old) = self.objects.insert(object.id, object.clone()) {
                    self.move_comments(&old, object);
                    self.move_indexes(&old, object);
                }
            }
            Change::Comment { object, column, text } => {
                if !self.objects.contains_key(object) {
                    return Err(Error::internal(format!("commented object {object} is gone")));
                }
                match text {
                    Some(text) => self.comments.insert((*object, *column), text.clone()),
                    None => self.comments.remove(&(*object, *column)),
                };
            }
            Change::CreateIndex(index) => {
                let Some(relation) = self.objects.get(&index.relation) else {
                    return Err(Error::user(
                        SqlState::UNDEFINED_TABLE,
                        "the relation has been dropped meanwhile",
                    ));
                };
                let name = ObjectName { name: index.name.clone(), ..relation.name.clone() };
                if self.by_name.contains_key(&name) || self.lookup_index(&name).is_some() {
                    return Err(Error::user(
                        SqlState::DUPLICATE_TABLE,
                        format!("relation \"{}\" already exists", index.name),
                    ));
                }
                self.next_id = self.next_id.max(index.id.0 + 1);
                self.indexes.insert(index.id, index.clone());
            }
            Change::DropIndex(id) => {
                if let Some(reader) = self.readers_of_index(*id).next() {
                    return Err(Error::user(
                        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                        "cannot drop the index because other objects depend on it",
                    )
                    .detail(format!("{} {} reads it", reader.kind_noun(), reader.name.name))
                    .retryable());
                }
                if self.indexes.remove(id).is_none() {
                    return Err(Error::user(
                        SqlState::UNDEFINED_OBJECT,
                        "the index has been dropped meanwhile",
                    ));
                }
            }
            Change::Define { object, definer } => {
                if !self.objects.contains_key(object) {
                    return Err(Error::internal(format!("defined object {object} is gone")));
                }
                self.definers.insert(*object, definer.clone());
            }
            Change::FillTable { .. } => {}
        }
        Ok(())
    }
}

impl Catalog {
    /// Indexes follow their columns, by name; one that has lost a column goes.
    fn move_indexes(&mut self, old: &Object, new: &Object) {
        self.indexes.retain(|_, index| {
            if index.relation != new.id {
                return true;
            }
            let place = |column: &usize| {
                let name = old.schema.fields().get(*column)?.name();
                Some(new.column(name)?.0)
            };
            let Some(columns) = index.columns.iter().map(place).collect() else { return false };
            *index = Arc::new(IndexObject { columns, ..index.as_ref().clone() });
            true
        });
    }

    /// Comments follow their columns, by name, into a new definition.
    fn move_comments(&mut self, old: &Object, new: &Object) {
        let of_columns: Vec<(usize, String)> = self
            .comments(old.id)
            .filter_map(|(column, text)| Some((column?, text.to_owned())))
            .collect();
        self.comments.retain(|(object, column), _| *object != old.id || column.is_none());
        for (column, text) in of_columns {
            let name = old.schema.fields().get(column).map(|field| field.name());
            if let Some((index, _)) = name.and_then(|name| new.column(name)) {
                self.comments.insert((new.id, Some(index)), text);
            }
        }
    }
}

/// SQLSTATE 3D000.
pub fn no_database(name: &str) -> Error {
    Error::user(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
}

/// SQLSTATE 3F000.
pub fn no_schema(name: &str) -> Error {
    Error::user(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"))
}
