//! What the functions look at: the catalog, by object ids and by names.

use std::sync::Arc;

use super::Session;
use super::names::{name_parts, quote_ident};
use crate::catalog::object::{Object, ObjectKind, ObjectName};
use crate::catalog::pg_catalog::{
    definition_of_index, index_definition, index_oid, object_of_constraint_oid,
    object_of_index_oid, object_of_oid, primary_key_columns, primary_key_name, relation_oid,
    schema_oid, system_relation_oid,
};
use crate::catalog::snapshot::Catalog;
use crate::catalog::system_views::{self, SYSTEM_SCHEMAS};

/// What one statement's functions look at.
pub struct Facts {
    pub catalog: Arc<Catalog>,
    pub database: String,
    /// Existing schemas of the search path.
    pub search_path: Vec<String>,
    pub user: String,
    pub session: Option<Arc<dyn Session>>,
}

impl Facts {
    fn lookup(&self, schema: &str, name: &str) -> Option<&Arc<Object>> {
        self.catalog.lookup(&ObjectName {
            database: self.database.clone(),
            schema: schema.to_owned(),
            name: name.to_owned(),
        })
    }

    fn object(&self, oid: i64) -> Option<&Object> {
        let object = self.catalog.get(object_of_oid(oid)?)?;
        (object.name.database == self.database).then_some(object.as_ref())
    }

    pub fn relation_visible(&self, oid: i64) -> bool {
        let object = self
            .object(oid)
            .or_else(|| self.catalog.get(object_of_index_oid(oid)?).map(AsRef::as_ref))
            .or_else(|| {
                let index = self.catalog.index(object_of_oid(oid)?)?;
                self.catalog.get(index.relation).map(AsRef::as_ref)
            });
        match object {
            // The first relation of that name on the path hides the others.
            Some(object) => {
                let name = &object.name.name;
                let first = self.search_path.iter().find_map(|schema| self.lookup(schema, name));
                first.is_some_and(|first| first.id == object.id)
            }
            None => system_relation(oid).is_some_and(|r| r.schema_name == "pg_catalog"),
        }
    }

    /// The id of the relation that a text names.
    pub fn relation_oid(&self, text: &str) -> Option<i64> {
        let in_schema = |schema: &str, name: &str| match system_views::find(schema, name) {
            Some(relation) => Some(system_relation_oid(relation.name, relation.index)),
            None => self
                .lookup(schema, name)
                .map(|object| relation_oid(object.id))
                .or_else(|| self.index_oid(schema, name)),
        };
        match &name_parts(text)?[..] {
            [name] => in_schema("pg_catalog", name)
                .or_else(|| self.search_path.iter().find_map(|schema| in_schema(schema, name))),
            [schema, name] => in_schema(schema, name),
            [database, schema, name] if *database == self.database => in_schema(schema, name),
            _ => None,
        }
    }

    /// The id of an index, also of a primary key's.
    fn index_oid(&self, schema: &str, name: &str) -> Option<i64> {
        let full_name = ObjectName {
            database: self.database.clone(),
            schema: schema.to_owned(),
            name: name.to_owned(),
        };
        if let Some(index) = self.catalog.lookup_index(&full_name) {
            return Some(relation_oid(index.id));
        }
        let of_key = self.catalog.objects().find(|object| {
            object.name.schema == schema
                && object.name.database == self.database
                && !primary_key_columns(object).is_empty()
                && primary_key_name(object) == name
        });
        of_key.map(|object| index_oid(object.id))
    }

    /// A relation's name, with its schema when it would not be found without.
    pub fn shown_name(&self, oid: i64) -> Option<String> {
        if let Some(object) = self.object(oid) {
            let name = quote_ident(&object.name.name);
            return Some(match self.relation_visible(oid) {
                true => name,
                false => format!("{}.{name}", quote_ident(&object.name.schema)),
            });
        }
        if let Some(object) = object_of_index_oid(oid).and_then(|id| self.catalog.get(id)) {
            return Some(primary_key_name(object));
        }
        if let Some(index) = object_of_oid(oid).and_then(|id| self.catalog.index(id)) {
            return Some(quote_ident(&index.name));
        }
        let relation = system_relation(oid)?;
        Some(match relation.schema_name {
            "pg_catalog" => relation.name.to_owned(),
            schema => format!("{schema}.{}", relation.name),
        })
    }

    fn schemas(&self) -> impl Iterator<Item = &str> {
        let own = self.catalog.schemas(&self.database).unwrap_or_default();
        SYSTEM_SCHEMAS.into_iter().chain(own.iter().map(String::as_str))
    }

    pub fn schema_oid(&self, name: &str) -> Option<i64> {
        let parts = name_parts(name)?;
        let [name] = &parts[..] else { return None };
        self.schemas().find(|s| s == name).map(|s| schema_oid(&self.database, s))
    }

    pub fn schema_name(&self, oid: i64) -> Option<String> {
        self.schemas().find(|s| schema_oid(&self.database, s) == oid).map(quote_ident)
    }

    pub fn view_definition(&self, oid: i64) -> Option<String> {
        match &self.object(oid)?.kind {
            ObjectKind::View(view) | ObjectKind::MaterializedView(view) => {
                Some(format!(" {};", view.query_sql.trim()))
            }
            ObjectKind::Source(_) | ObjectKind::Table(_) | ObjectKind::Sink(_) => None,
        }
    }

    /// The statement that would make an index, or its n-th column.
    pub fn index_definition(&self, oid: i64, column: i64) -> Option<String> {
        if let Some(index) = object_of_oid(oid).and_then(|id| self.catalog.index(id)) {
            let object = self.catalog.get(index.relation)?;
            if column == 0 {
                return Some(definition_of_index(object, index));
            }
            let place = usize::try_from(column).ok()?.checked_sub(1)?;
            let column = index.columns.get(place)?;
            return Some(quote_ident(object.schema.field(*column).name()));
        }
        let object = self.catalog.get(object_of_index_oid(oid)?)?;
        if column == 0 {
            return index_definition(object);
        }
        let place = usize::try_from(column).ok()?.checked_sub(1)?;
        primary_key_columns(object).get(place).map(|name| quote_ident(name))
    }

    pub fn constraint_definition(&self, oid: i64) -> Option<String> {
        let object = self.catalog.get(object_of_constraint_oid(oid)?)?;
        let columns: Vec<String> =
            primary_key_columns(object).iter().map(|name| quote_ident(name)).collect();
        (!columns.is_empty()).then(|| format!("PRIMARY KEY ({})", columns.join(", ")))
    }

    pub fn comment(&self, oid: i64, column: Option<usize>) -> Option<String> {
        let object = self.object(oid)?;
        let mut comments = self.catalog.comments(object.id);
        comments.find(|(of, _)| *of == column).map(|(_, text)| text.to_owned())
    }
}

fn system_relation(oid: i64) -> Option<&'static system_views::SystemRelation> {
    system_views::relations().iter().find(|r| system_relation_oid(r.name, r.index) == oid)
}
