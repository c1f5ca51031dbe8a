//! A PostgreSQL database for many stores, one after the other: wiped between them, which takes a twentieth of what a new one does.

use std::time::Duration;

use hallpass::identity::mac::MacKey;
use hallpass::store::postgres::{PostgresStore, Settings};
use tokio_postgres::{Client, NoTls};

use super::postgres::cluster;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the tables hold in a database that nothing has been written to is kept beside them; the statements that bring tables and
/// sequences back to it are the answer.
const KEEP: &str = "
CREATE SCHEMA pristine;
CREATE FUNCTION pristine.keep() RETURNS text LANGUAGE plpgsql AS $$
DECLARE name text; wipe text := ''; fill text := ''; is_empty boolean;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'hallpass' ORDER BY tablename LOOP
        EXECUTE format('SELECT NOT EXISTS (TABLE hallpass.%I)', name) INTO is_empty;
        wipe := wipe || format('DELETE FROM hallpass.%I;', name);
        IF NOT is_empty THEN
            EXECUTE format('CREATE TABLE pristine.%1$I AS TABLE hallpass.%1$I', name);
            fill := fill || format('INSERT INTO hallpass.%1$I TABLE pristine.%1$I;', name);
        END IF;
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'hallpass' LOOP
        fill := fill || format('SELECT setval(''hallpass.%I'', 1, false);', name);
    END LOOP;
    RETURN wipe || fill;
END $$;
";

/// The database, as somebody who can write it past the service.
pub(crate) struct Slate {
    name: String,
    client: Client,
    wipe: String,
}

impl Slate {
    /// A new database with the schema in it. The connection lasts as long as the runtime.
    pub(crate) async fn new() -> Self {
        let name = cluster().database();
        drop(PostgresStore::open(&cluster().settings(&name), MacKey::new([0; 32])).await.unwrap());
        let (folder, port) = (cluster().folder().display(), cluster().port());
        let way = format!("host={folder} port={port} user=hallpass dbname={name}");
        let (client, connection) = tokio_postgres::connect(&way, NoTls).await.unwrap();
        tokio::spawn(async move { connection.await.unwrap() });
        client.batch_execute(KEEP).await.unwrap();
        let wipe = client.query_one("SELECT pristine.keep()", &[]).await.unwrap().get(0);
        // Each store has connections of its own, which otherwise plan each statement anew five times.
        client.batch_execute(&format!("ALTER DATABASE {name} SET plan_cache_mode = force_generic_plan")).await.unwrap();
        Self { name, client, wipe }
    }

    /// Wipes it; nobody has it open. Whoever lives many stores waits for the machine, however busy it is.
    pub(crate) async fn wiped(&self) -> Settings {
        self.client.batch_execute(&self.wipe).await.unwrap();
        Settings {
            connect_timeout: PATIENCE,
            statement_timeout: PATIENCE,
            lock_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            ..cluster().settings(&self.name)
        }
    }
}
