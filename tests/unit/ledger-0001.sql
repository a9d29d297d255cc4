-- What bhnbench wrote at schema 0001: a dump of a small sweep's SQLite file, parents first.
CREATE TABLE alembic_version (
  version_num VARCHAR(32) NOT NULL, 
  CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE runs (
  id INTEGER NOT NULL, 
  "key" VARCHAR(64) NOT NULL, 
  task_name TEXT NOT NULL, 
  task_key VARCHAR(64) NOT NULL, 
  method_name TEXT NOT NULL, 
  spec JSON NOT NULL, 
  state VARCHAR(20) NOT NULL, 
  failure VARCHAR(20), 
  message TEXT NOT NULL, 
  attempts INTEGER NOT NULL, 
  started_at DATETIME, 
  finished_at DATETIME, 
  fit_seconds FLOAT, 
  score_seconds FLOAT, 
  peak_memory_mb FLOAT, 
  provenance JSON NOT NULL, 
  CONSTRAINT pk_runs PRIMARY KEY (id), 
  CONSTRAINT uq_runs_key UNIQUE ("key")
);
CREATE INDEX ix_runs_state ON runs (state);
CREATE INDEX ix_runs_task_name ON runs (task_name);
INSERT INTO "runs" VALUES(1,'2e2f05238f49ec16701b13f308fa40fe1c19c53678d68a76dfe8e3d44f7531e4','guess','d88a712d365a1e9d4a828ca072752ea9fd8b645e365c07ed791a25148ecdc5e0','constant','{"task": {"name": "guess", "version": "1", "settings": {"target": 0.3, "n_steps": 2, "seconds": 0.0}, "target": "bhnbench_doubles.tasks:Guess", "data_digest": ""}, "method": {"name": "constant", "version": "1", "settings": {"x": 0.5}, "target": "bhnbench_doubles.methods:Constant", "data_digest": ""}, "phase": "search", "seed": 0}','done',NULL,'',1,'2026-11-21 10:59:21.841868','2026-11-21 10:59:21.884098',4.09599988415720872581e-06,1.78826320002372085582e-02,396.5390625,'{"packages": {"python": "3.11.7", "system": "linux x86_64", "bhnbench": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "ray": "2.60.0", "optuna": "5.0.0", "scikit-learn": "1.9.1"}, "data_digest": "", "host": "host", "device": "cpu", "n_threads": 1}');
INSERT INTO "runs" VALUES(2,'d4a44a7cb62af06b308113890e1b96f34b4e1885bf200603cd6ea7f998218cb4','guess','d88a712d365a1e9d4a828ca072752ea9fd8b645e365c07ed791a25148ecdc5e0','failing','{"task": {"name": "guess", "version": "1", "settings": {"target": 0.3, "n_steps": 2, "seconds": 0.0}, "target": "bhnbench_doubles.tasks:Guess", "data_digest": ""}, "method": {"name": "failing", "version": "1", "settings": {"how": "diverge", "x": 0.5, "mark": ""}, "target": "bhnbench_doubles.methods:Failing", "data_digest": ""}, "phase": "evaluate", "seed": 1}','failed','diverged','loss must be finite, but is nan at step 3 (last finite: 1.5)',1,'2026-11-21 10:59:21.920067','2026-11-21 10:59:21.941003',6.469999789260327816e-06,3.1345500019597238861e-04,397.0703125,'{"packages": {"python": "3.11.7", "system": "linux x86_64", "bhnbench": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "ray": "2.60.0", "optuna": "5.0.0", "scikit-learn": "1.9.1"}, "data_digest": "", "host": "host", "device": "cpu", "n_threads": 1}');
INSERT INTO "runs" VALUES(3,'acea7ba37154659825744f7261c608c13d7b600e9c1f793f1d1b636ecef5a66c','guess','d88a712d365a1e9d4a828ca072752ea9fd8b645e365c07ed791a25148ecdc5e0','constant','{"task": {"name": "guess", "version": "1", "settings": {"target": 0.3, "n_steps": 2, "seconds": 0.0}, "target": "bhnbench_doubles.tasks:Guess", "data_digest": ""}, "method": {"name": "constant", "version": "1", "settings": {"x": 0.0018911829464283159}, "target": "bhnbench_doubles.methods:Constant", "data_digest": ""}, "phase": "search", "seed": 0}','done',NULL,'',1,'2026-11-21 10:59:21.945784','2026-11-21 10:59:21.961319',5.0569997256388887763e-06,1.32879870002398092765e-02,397.37890625,'{"packages": {"python": "3.11.7", "system": "linux x86_64", "bhnbench": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "ray": "2.60.0", "optuna": "5.0.0", "scikit-learn": "1.9.1"}, "data_digest": "", "host": "host", "device": "cpu", "n_threads": 1}');
INSERT INTO "runs" VALUES(4,'25f4e89bff5a8ad31e77f565c710845722ed768b605ec24543fcca2859a8a937','guess','d88a712d365a1e9d4a828ca072752ea9fd8b645e365c07ed791a25148ecdc5e0','failing','{"task": {"name": "guess", "version": "1", "settings": {"target": 0.3, "n_steps": 2, "seconds": 0.0}, "target": "bhnbench_doubles.tasks:Guess", "data_digest": ""}, "method": {"name": "failing", "version": "1", "settings": {"how": "diverge", "x": 0.5, "mark": ""}, "target": "bhnbench_doubles.methods:Failing", "data_digest": ""}, "phase": "evaluate", "seed": 2}','failed','diverged','loss must be finite, but is nan at step 3 (last finite: 1.5)',1,'2026-11-21 10:59:21.968743','2026-11-21 10:59:21.970031',5.89899991609854623675e-06,2.93475000034959521144e-04,397.3828125,'{"packages": {"python": "3.11.7", "system": "linux x86_64", "bhnbench": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "ray": "2.60.0", "optuna": "5.0.0", "scikit-learn": "1.9.1"}, "data_digest": "", "host": "host", "device": "cpu", "n_threads": 1}');
INSERT INTO "runs" VALUES(5,'f07d7ff2b8ed69349880f8b556ab291ba31a1a51e69f4ac989a2107b1df7be6b','guess','d88a712d365a1e9d4a828ca072752ea9fd8b645e365c07ed791a25148ecdc5e0','constant','{"task": {"name": "guess", "version": "1", "settings": {"target": 0.3, "n_steps": 2, "seconds": 0.0}, "target": "bhnbench_doubles.tasks:Guess", "data_digest": ""}, "method": {"name": "constant", "version": "1", "settings": {"x": 0.5}, "target": "bhnbench_doubles.methods:Constant", "data_digest": ""}, "phase": "evaluate", "seed": 1}','done',NULL,'',1,'2026-11-21 10:59:21.981448','2026-11-21 10:59:21.993216',5.88900002185255289077e-06,1.00460110002131841611e-02,397.38671875,'{"packages": {"python": "3.11.7", "system": "linux x86_64", "bhnbench": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "ray": "2.60.0", "optuna": "5.0.0", "scikit-learn": "1.9.1"}, "data_digest": "", "host": "host", "device": "cpu", "n_threads": 1}');
INSERT INTO "runs" VALUES(6,'ddf9f31f5721a7980b7857caec065df037bec1b95b994b48b30c0524b191d075','guess','d88a712d365a1e9d4a828ca072752ea9fd8b645e365c07ed791a25148ecdc5e0','constant','{"task": {"name": "guess", "version": "1", "settings": {"target": 0.3, "n_steps": 2, "seconds": 0.0}, "target": "bhnbench_doubles.tasks:Guess", "data_digest": ""}, "method": {"name": "constant", "version": "1", "settings": {"x": 0.5}, "target": "bhnbench_doubles.methods:Constant", "data_digest": ""}, "phase": "evaluate", "seed": 2}','done',NULL,'',1,'2026-11-21 10:59:21.995609','2026-11-21 10:59:22.005466',4.34599996879114769399e-06,8.0692759997873508837e-03,397.38671875,'{"packages": {"python": "3.11.7", "system": "linux x86_64", "bhnbench": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "ray": "2.60.0", "optuna": "5.0.0", "scikit-learn": "1.9.1"}, "data_digest": "", "host": "host", "device": "cpu", "n_threads": 1}');
CREATE TABLE studies (
  id INTEGER NOT NULL, 
  "key" VARCHAR(64) NOT NULL, 
  spec JSON NOT NULL, 
  CONSTRAINT pk_studies PRIMARY KEY (id), 
  CONSTRAINT uq_studies_key UNIQUE ("key")
);
INSERT INTO "studies" VALUES(1,'649dce6297c8442c14b4c3072afc9e5b75630a9ca48e86c08fa9db4c62794f3b','{"task": {"name": "guess", "version": "1", "settings": {"target": 0.3, "n_steps": 2, "seconds": 0.0}, "target": "bhnbench_doubles.tasks:Guess", "data_digest": ""}, "method": {"name": "constant", "version": "1", "settings": {"x": 0.5}, "target": "bhnbench_doubles.methods:Constant", "data_digest": ""}, "space": {"x": {"kind": "float", "low": 0.0, "high": 1.0, "log": false}}, "search": {"sampler": "random", "seed": 0, "early_termination": null}, "metric": "closeness", "direction": "maximize", "unit": ""}');
INSERT INTO "studies" VALUES(2,'52b1e0a4946018f36ca9b6d6a21e3aeab0e8f655d65ef07189370d81bcc31e01','{"task": {"name": "guess", "version": "1", "settings": {"target": 0.3, "n_steps": 2, "seconds": 0.0}, "target": "bhnbench_doubles.tasks:Guess", "data_digest": ""}, "method": {"name": "failing", "version": "1", "settings": {"how": "diverge", "x": 0.5, "mark": ""}, "target": "bhnbench_doubles.methods:Failing", "data_digest": ""}, "space": {}, "search": null, "metric": "closeness", "direction": "maximize", "unit": ""}');
CREATE TABLE sweeps (
  id INTEGER NOT NULL, 
  name VARCHAR(100) NOT NULL, 
  digest VARCHAR(64) NOT NULL, 
  document JSON NOT NULL, 
  n_seeds INTEGER NOT NULL, 
  created_at DATETIME NOT NULL, 
  started_at DATETIME NOT NULL, 
  finished_at DATETIME, 
  CONSTRAINT pk_sweeps PRIMARY KEY (id), 
  CONSTRAINT uq_sweeps_name_digest UNIQUE (name, digest)
);
CREATE INDEX ix_sweeps_name ON sweeps (name);
CREATE INDEX ix_sweeps_started_at ON sweeps (started_at);
INSERT INTO "sweeps" VALUES(1,'old','52e978263a0ac2fe05733f58de53260317d0bd850b04d48eb1b03fb70b507fcf','{"name": "old", "tasks": [{"name": "guess", "n_steps": 2}], "methods": ["constant", {"name": "failing", "how": "diverge", "x": 0.5}], "search": {"sampler": "random", "trials": 2}, "evaluate": {"seeds": 2}}',2,'2026-11-21 10:59:21.784174','2026-11-21 10:59:21.784884','2026-11-21 10:59:22.016070');
CREATE TABLE points (
  run_id INTEGER NOT NULL, 
  step INTEGER NOT NULL, 
  metric VARCHAR(100) NOT NULL, 
  value FLOAT NOT NULL, 
  CONSTRAINT pk_points PRIMARY KEY (run_id, step, metric), 
  CONSTRAINT fk_points_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "points" VALUES(1,1,'closeness',-4.18293749094009403854e-01);
INSERT INTO "points" VALUES(1,2,'closeness',-3.13720311820507080646e-01);
INSERT INTO "points" VALUES(3,1,'closeness',-6.1451138315722342309e-01);
INSERT INTO "points" VALUES(3,2,'closeness',-4.60883537367917539562e-01);
INSERT INTO "points" VALUES(5,1,'closeness',-4.11054731607437162654e-01);
INSERT INTO "points" VALUES(5,2,'closeness',-3.08291048705577885868e-01);
INSERT INTO "points" VALUES(6,1,'closeness',-4.14441779851913494336e-01);
INSERT INTO "points" VALUES(6,2,'closeness',-3.10831334888935106874e-01);
CREATE TABLE scores (
  run_id INTEGER NOT NULL, 
  metric VARCHAR(100) NOT NULL, 
  value FLOAT NOT NULL, 
  CONSTRAINT pk_scores PRIMARY KEY (run_id, metric), 
  CONSTRAINT fk_scores_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "scores" VALUES(1,'closeness',-2.09146874547004701927e-01);
INSERT INTO "scores" VALUES(3,'closeness',-3.07255691578611711545e-01);
INSERT INTO "scores" VALUES(5,'closeness',-2.05527365803718581327e-01);
INSERT INTO "scores" VALUES(6,'closeness',-2.07220889925956747168e-01);
CREATE TABLE sweep_studies (
  sweep_id INTEGER NOT NULL, 
  position INTEGER NOT NULL, 
  study_id INTEGER NOT NULL, 
  task_label TEXT NOT NULL, 
  method_label TEXT NOT NULL, 
  n_trials INTEGER NOT NULL, 
  CONSTRAINT pk_sweep_studies PRIMARY KEY (sweep_id, position), 
  CONSTRAINT fk_sweep_studies_study_id_studies FOREIGN KEY(study_id) REFERENCES studies (id), 
  CONSTRAINT fk_sweep_studies_sweep_id_sweeps FOREIGN KEY(sweep_id) REFERENCES sweeps (id)
);
CREATE INDEX ix_sweep_studies_study_id ON sweep_studies (study_id);
INSERT INTO "sweep_studies" VALUES(1,0,1,'guess(n_steps=2)','constant',2);
INSERT INTO "sweep_studies" VALUES(1,1,2,'guess(n_steps=2)','failing',0);
CREATE TABLE tables (
  run_id INTEGER NOT NULL, 
  name VARCHAR(100) NOT NULL, 
  columns JSON NOT NULL, 
  CONSTRAINT pk_tables PRIMARY KEY (run_id, name), 
  CONSTRAINT fk_tables_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "tables" VALUES(1,'guesses','{"guess": [0.5]}');
INSERT INTO "tables" VALUES(3,'guesses','{"guess": [0.0018911829683929682]}');
INSERT INTO "tables" VALUES(5,'guesses','{"guess": [0.5]}');
INSERT INTO "tables" VALUES(6,'guesses','{"guess": [0.5]}');
CREATE TABLE trials (
  study_id INTEGER NOT NULL, 
  number INTEGER NOT NULL, 
  run_id INTEGER NOT NULL, 
  configuration JSON NOT NULL, 
  state VARCHAR(20) NOT NULL, 
  failure VARCHAR(20), 
  value FLOAT, 
  last_step INTEGER, 
  CONSTRAINT pk_trials PRIMARY KEY (study_id, number), 
  CONSTRAINT fk_trials_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id), 
  CONSTRAINT fk_trials_study_id_studies FOREIGN KEY(study_id) REFERENCES studies (id)
);
CREATE INDEX ix_trials_run_id ON trials (run_id);
INSERT INTO "trials" VALUES(1,0,1,'{"x": 0.5}','done',NULL,-2.09146874547004701927e-01,2);
INSERT INTO "trials" VALUES(1,1,3,'{"x": 0.0018911829464283159}','done',NULL,-3.07255691578611711545e-01,2);
