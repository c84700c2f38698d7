BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'triage','m001_initial','2026-11-24 08:58:21.199176+00:00');
CREATE TABLE "alert_groups" (
   "key" TEXT PRIMARY KEY NOT NULL,
   "receivers" TEXT NOT NULL,
   "severity" TEXT NOT NULL,
   "labels" TEXT NOT NULL,
   "group_wait" REAL NOT NULL,
   "group_interval" REAL NOT NULL,
   "created_at" TEXT NOT NULL,
   "flushes" INTEGER NOT NULL DEFAULT 0,
   "told" INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO "alert_groups" VALUES('087a04f5986ddda3','["default"]','warning','{"function":"told","condition":"InvocationError","error_type":"InvocationError","error_message":"Function timed out after 60 seconds (maxMemoryUsage: 8MB)","fingerprint":"v1-88f840d78ddc81ca","rule":"tell","owner":"","runbook":""}',5.0,300.0,'2026-03-01T12:00:00.000000Z',1,1);
INSERT INTO "alert_groups" VALUES('a7728bb82f43f67b','["default"]','warning','{"function":"untold","condition":"InvocationError","error_type":"InvocationError","error_message":"Function timed out after 60 seconds (maxMemoryUsage: 8MB)","fingerprint":"v1-d36c5c60b31ecfb9","rule":"tell","owner":"","runbook":""}',5.0,300.0,'2026-03-01T12:14:02.000000Z',0,0);
CREATE TABLE "alerts" (
   "id" INTEGER PRIMARY KEY,
   "group_key" TEXT NOT NULL REFERENCES "alert_groups"("key"),
   "root" TEXT REFERENCES "lineages"("root"),
   "request_id" TEXT NOT NULL,
   "cause" TEXT NOT NULL,
   "detail" TEXT NOT NULL,
   "at" TEXT NOT NULL,
   "flush" INTEGER
) STRICT;
INSERT INTO "alerts" VALUES(1,'087a04f5986ddda3','1-told','1-told','failed','','2026-03-01T12:00:00.000000Z',1);
INSERT INTO "alerts" VALUES(2,'a7728bb82f43f67b','1-untold','1-untold','failed','','2026-03-01T12:14:02.000000Z',NULL);
CREATE TABLE "conflicts" (
   "id" INTEGER PRIMARY KEY,
   "request_id" TEXT NOT NULL REFERENCES "envelopes"("request_id"),
   "digest" TEXT NOT NULL,
   "received_at" TEXT NOT NULL,
   "source" TEXT NOT NULL,
   "message_id" TEXT NOT NULL,
   "body" BLOB NOT NULL
) STRICT;
INSERT INTO "conflicts" VALUES(1,'1-known','4b05303606d9833943144d90ac050f503da4e2005326c403e679b2e84df407b1','2026-03-01T12:00:00.000000Z','fake','fake-14',X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D6B6E6F776E222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F6B6E6F776E222C2022636F6E646974696F6E223A20224F74686572222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C226B6E6F776E5C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A20224F74686572227D2C2022726573706F6E73655061796C6F6164223A20227B5C226572726F724D6573736167655C223A205C2246756E6374696F6E2074696D6564206F7574206166746572203630207365636F6E647320286D61784D656D6F727955736167653A20384D42295C227D227D');
CREATE TABLE "counters" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "value" INTEGER NOT NULL
) STRICT;
INSERT INTO "counters" VALUES('decided',11);
INSERT INTO "counters" VALUES('quarantined',1);
INSERT INTO "counters" VALUES('received',14);
INSERT INTO "counters" VALUES('failures',8);
INSERT INTO "counters" VALUES('duplicates',1);
INSERT INTO "counters" VALUES('conflicts',1);
CREATE TABLE "decisions" (
   "id" INTEGER PRIMARY KEY REFERENCES "envelopes"("id"),
   "request_id" TEXT NOT NULL,
   "decided_at" TEXT NOT NULL,
   "reason" TEXT NOT NULL,
   "rule_id" TEXT NOT NULL,
   "rule_set" TEXT NOT NULL REFERENCES "rule_sets"("digest"),
   "facts" TEXT NOT NULL,
   "effects" TEXT NOT NULL,
   "also" TEXT NOT NULL,
   "shadow" TEXT NOT NULL
) STRICT;
INSERT INTO "decisions" VALUES(1,'1-heals','2026-03-01T12:00:00.000000Z','matched','again','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:00:00.000000Z","lineage":null,"group":null}','[{"kind":"rerun","task_id":"triage-702bba1d4a07f87d7e7e76deadafb942-1","attempt":1,"due_at":"2026-03-01T12:02:00.000000Z"}]','[]','[]');
INSERT INTO "decisions" VALUES(2,'1-told','2026-03-01T12:00:00.000000Z','matched','tell','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:00:00.000000Z","lineage":null,"group":null}','[{"kind":"alert","cause":"failed","to":["default"],"severity":"warning"}]','[]','[]');
INSERT INTO "decisions" VALUES(3,'1-known','2026-03-01T12:00:00.000000Z','matched','known','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:00:00.000000Z","lineage":null,"group":null}','[]','[]','[]');
INSERT INTO "decisions" VALUES(4,'1-asks','2026-03-01T12:00:00.000000Z','matched','ask','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:00:00.000000Z","lineage":null,"group":null}','[{"kind":"hold","reason":"was it paid?","due_at":"2026-03-02T12:00:00.000000Z"}]','[]','[]');
INSERT INTO "decisions" VALUES(5,'1-fine','2026-03-01T12:00:00.000000Z','succeeded','','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:00:00.000000Z","lineage":null,"group":null}','[]','[]','[]');
INSERT INTO "decisions" VALUES(6,'2-fine','2026-03-01T12:00:00.000000Z','succeeded','','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:00:00.000000Z","lineage":null,"group":null}','[]','[]','[]');
INSERT INTO "decisions" VALUES(7,'fake-1','2026-03-01T12:02:10.000000Z','ambiguous','','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:02:10.000000Z","lineage":{"root":"1-heals","state":"rerunning","attempt":1,"started_at":"2026-03-01T12:00:00.000000Z","rule_id":"again","version":2,"manual":0},"group":null}','[{"kind":"resolve","task_id":"triage-702bba1d4a07f87d7e7e76deadafb942-1","attempt":1}]','[]','[]');
INSERT INTO "decisions" VALUES(8,'1-runs','2026-03-01T12:10:00.000000Z','matched','again','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:10:00.000000Z","lineage":null,"group":null}','[{"kind":"rerun","task_id":"triage-a672f025b75b8b2fc476bd9ee0b59cab-1","attempt":1,"due_at":"2026-03-01T12:12:00.000000Z"}]','[]','[]');
INSERT INTO "decisions" VALUES(9,'1-lost','2026-03-01T12:12:01.000000Z','matched','again','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:12:01.000000Z","lineage":null,"group":null}','[{"kind":"rerun","task_id":"triage-191ee88272fe1fc337f38a336153d123-1","attempt":1,"due_at":"2026-03-01T12:14:01.000000Z"}]','[]','[]');
INSERT INTO "decisions" VALUES(10,'1-waits','2026-03-01T12:14:02.000000Z','matched','again','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:14:02.000000Z","lineage":null,"group":null}','[{"kind":"rerun","task_id":"triage-9ce1cb7c731f9babc024ffc6e142bb51-1","attempt":1,"due_at":"2026-03-01T12:16:02.000000Z"}]','[]','[]');
INSERT INTO "decisions" VALUES(11,'1-untold','2026-03-01T12:14:02.000000Z','matched','tell','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','{"now":"2026-03-01T12:14:02.000000Z","lineage":null,"group":null}','[{"kind":"alert","cause":"failed","to":["default"],"severity":"warning"}]','[]','[]');
CREATE TABLE "deeds" (
   "id" INTEGER PRIMARY KEY,
   "at" TEXT NOT NULL,
   "by" TEXT NOT NULL,
   "action" TEXT NOT NULL,
   "reason" TEXT NOT NULL,
   "root" TEXT NOT NULL REFERENCES "lineages"("root"),
   "request_id" TEXT NOT NULL
) STRICT;
CREATE TABLE "deliveries" (
   "id" INTEGER PRIMARY KEY,
   "key" TEXT NOT NULL,
   "receiver" TEXT NOT NULL,
   "result" TEXT NOT NULL,
   "note" TEXT NOT NULL,
   "at" TEXT NOT NULL,
   "group_key" TEXT REFERENCES "alert_groups"("key"),
   "flush" INTEGER
) STRICT;
INSERT INTO "deliveries" VALUES(1,'notify:087a04f5986ddda3:1:default','default','sent','sent to 1','2026-03-01T12:00:05.000000Z','087a04f5986ddda3',1);
CREATE TABLE "envelopes" (
   "id" INTEGER PRIMARY KEY,
   "request_id" TEXT NOT NULL,
   "function" TEXT NOT NULL,
   "service" TEXT NOT NULL,
   "qualifier" TEXT NOT NULL,
   "region" TEXT NOT NULL,
   "account" TEXT NOT NULL,
   "condition" TEXT NOT NULL,
   "outcome" TEXT NOT NULL,
   "error_type" TEXT NOT NULL,
   "error_message" TEXT NOT NULL,
   "invoke_count" INTEGER,
   "status_code" INTEGER,
   "timestamp" TEXT,
   "received_at" TEXT NOT NULL,
   "enqueued_at" TEXT,
   "source" TEXT NOT NULL,
   "message_id" TEXT NOT NULL,
   "fingerprint" TEXT NOT NULL,
   "digest" TEXT NOT NULL,
   "root" TEXT REFERENCES "lineages"("root"),
   "attempt" INTEGER NOT NULL,
   "body" BLOB NOT NULL
) STRICT;
INSERT INTO "envelopes" VALUES(1,'1-heals','heals','','','cn-hangzhou','1034','InvocationError','failed','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','fake','fake-1','v1-f5466504f77d5179','535cbfcf28e691602dd5910dd57b25b922c2b246a6611e6dedc9ff27ed083216','1-heals',0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D6865616C73222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F6865616C73222C2022636F6E646974696F6E223A2022496E766F636174696F6E4572726F72222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C226865616C735C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022496E766F636174696F6E4572726F72227D2C2022726573706F6E73655061796C6F6164223A20227B5C226572726F724D6573736167655C223A205C2246756E6374696F6E2074696D6564206F7574206166746572203630207365636F6E647320286D61784D656D6F727955736167653A20384D42295C227D227D');
INSERT INTO "envelopes" VALUES(2,'1-told','told','','','cn-hangzhou','1034','InvocationError','failed','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','fake','fake-2','v1-88f840d78ddc81ca','15f2275771f112a6166290e84282122d3511a3f371a27d3aedb6ada3edda8683','1-told',0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D746F6C64222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F746F6C64222C2022636F6E646974696F6E223A2022496E766F636174696F6E4572726F72222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C22746F6C645C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022496E766F636174696F6E4572726F72227D2C2022726573706F6E73655061796C6F6164223A20227B5C226572726F724D6573736167655C223A205C2246756E6374696F6E2074696D6564206F7574206166746572203630207365636F6E647320286D61784D656D6F727955736167653A20384D42295C227D227D');
INSERT INTO "envelopes" VALUES(3,'1-known','known','','','cn-hangzhou','1034','InvocationError','failed','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','fake','fake-3','v1-3d33e0f3cc6a3ef4','a5d02c482d15ef1120d9eb385c9fa452f1e173f75c0d15724bdb4980ac6b03f2','1-known',0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D6B6E6F776E222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F6B6E6F776E222C2022636F6E646974696F6E223A2022496E766F636174696F6E4572726F72222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C226B6E6F776E5C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022496E766F636174696F6E4572726F72227D2C2022726573706F6E73655061796C6F6164223A20227B5C226572726F724D6573736167655C223A205C2246756E6374696F6E2074696D6564206F7574206166746572203630207365636F6E647320286D61784D656D6F727955736167653A20384D42295C227D227D');
INSERT INTO "envelopes" VALUES(4,'1-asks','asks','','','cn-hangzhou','1034','InvocationError','failed','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','fake','fake-4','v1-34b62ec90bfcb2bd','7755c20569b443c70f54c4c8cb3aa62eb5d24c8239551611ca0a8693f1dfc40c','1-asks',0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D61736B73222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F61736B73222C2022636F6E646974696F6E223A2022496E766F636174696F6E4572726F72222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C2261736B735C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022496E766F636174696F6E4572726F72227D2C2022726573706F6E73655061796C6F6164223A20227B5C226572726F724D6573736167655C223A205C2246756E6374696F6E2074696D6564206F7574206166746572203630207365636F6E647320286D61784D656D6F727955736167653A20384D42295C227D227D');
INSERT INTO "envelopes" VALUES(5,'1-fine','fine','','','cn-hangzhou','1034','','succeeded_or_stopped','','',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','fake','fake-6','v1-4600907c7ff90331','c5e1700a5b1919e2a1ee95485096fd7d798108268fbd4d02a17e61eabf4018aa',NULL,0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D66696E65222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F66696E65222C2022636F6E646974696F6E223A2022222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C2266696E655C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022227D2C2022726573706F6E73655061796C6F6164223A20227B7D227D');
INSERT INTO "envelopes" VALUES(6,'2-fine','fine','','','cn-hangzhou','1034','','succeeded_or_stopped','','',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','fake','fake-15','v1-4600907c7ff90331','1ad68ff5949cd19128d65461163a58345d484a9098e7512186d207fbf66cd2b5',NULL,0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022322D66696E65222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F66696E65222C2022636F6E646974696F6E223A2022222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C2266696E655C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022227D2C2022726573706F6E73655061796C6F6164223A20227B7D227D');
INSERT INTO "envelopes" VALUES(7,'fake-1','heals','','','cn-hangzhou','1034','','succeeded_or_stopped','','',1,200,NULL,'2026-03-01T12:02:10.000000Z','2026-03-01T12:02:00.000000Z','fake','fake-19','v1-cf761b4c4ac8d57e','2938f120a088b3ed82d53025a1e71e2247c4713c0d2b400d9bd86c9d98b8858c','1-heals',1,X'7B2272657175657374436F6E74657874223A207B22726571756573744964223A202266616B652D31222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F6865616C73222C2022636F6E646974696F6E223A2022222C2022617070726F78696D617465496E766F6B65436F756E74223A20317D2C2022726571756573745061796C6F6164223A20225C226865616C735C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022227D2C2022726573706F6E73655061796C6F6164223A20227B7D227D');
INSERT INTO "envelopes" VALUES(8,'1-runs','runs','','','cn-hangzhou','1034','InvocationError','failed','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:10:00.000000Z','2026-03-01T12:10:00.000000Z','fake','fake-21','v1-1fb40f812346b3f5','9558dd3b885476d3ecc1d5c8befb1020e3de463d9ded71a9499d173b689cabc6','1-runs',0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D72756E73222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F72756E73222C2022636F6E646974696F6E223A2022496E766F636174696F6E4572726F72222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C2272756E735C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022496E766F636174696F6E4572726F72227D2C2022726573706F6E73655061796C6F6164223A20227B5C226572726F724D6573736167655C223A205C2246756E6374696F6E2074696D6564206F7574206166746572203630207365636F6E647320286D61784D656D6F727955736167653A20384D42295C227D227D');
INSERT INTO "envelopes" VALUES(9,'1-lost','lost','','','cn-hangzhou','1034','InvocationError','failed','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:12:01.000000Z','2026-03-01T12:12:01.000000Z','fake','fake-24','v1-d0b183f4e38bd45c','3996ffe9f202c9fc2fcb8a5213e0e7fbd81b2f749406b18ef082b0c761d792af','1-lost',0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D6C6F7374222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F6C6F7374222C2022636F6E646974696F6E223A2022496E766F636174696F6E4572726F72222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C226C6F73745C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022496E766F636174696F6E4572726F72227D2C2022726573706F6E73655061796C6F6164223A20227B5C226572726F724D6573736167655C223A205C2246756E6374696F6E2074696D6564206F7574206166746572203630207365636F6E647320286D61784D656D6F727955736167653A20384D42295C227D227D');
INSERT INTO "envelopes" VALUES(10,'1-waits','waits','','','cn-hangzhou','1034','InvocationError','failed','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:14:02.000000Z','2026-03-01T12:14:02.000000Z','fake','fake-26','v1-e74b31c396db6c1f','68a9a7b59f3f2e10a13f4051ad9dedc47ed545cc6537046b749189c31bc0069c','1-waits',0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D7761697473222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F7761697473222C2022636F6E646974696F6E223A2022496E766F636174696F6E4572726F72222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C2277616974735C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022496E766F636174696F6E4572726F72227D2C2022726573706F6E73655061796C6F6164223A20227B5C226572726F724D6573736167655C223A205C2246756E6374696F6E2074696D6564206F7574206166746572203630207365636F6E647320286D61784D656D6F727955736167653A20384D42295C227D227D');
INSERT INTO "envelopes" VALUES(11,'1-untold','untold','','','cn-hangzhou','1034','InvocationError','failed','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)',2,200,'2024-10-09T09:11:59.433000Z','2026-03-01T12:14:02.000000Z','2026-03-01T12:14:02.000000Z','fake','fake-27','v1-d36c5c60b31ecfb9','c2ff3b2d275688ac8caec6c24883e1ac8017634a56daee54c9a857596caed625','1-untold',0,X'7B2274696D657374616D70223A20313732383436353131393433332C202272657175657374436F6E74657874223A207B22726571756573744964223A2022312D756E746F6C64222C202266756E6374696F6E41726E223A20226163733A66633A636E2D68616E677A686F753A313033343A66756E6374696F6E732F756E746F6C64222C2022636F6E646974696F6E223A2022496E766F636174696F6E4572726F72222C2022617070726F78696D617465496E766F6B65436F756E74223A20327D2C2022726571756573745061796C6F6164223A20225C22756E746F6C645C22222C2022726573706F6E7365436F6E74657874223A207B22737461747573436F6465223A203230302C202266756E6374696F6E4572726F72223A2022496E766F636174696F6E4572726F72227D2C2022726573706F6E73655061796C6F6164223A20227B5C226572726F724D6573736167655C223A205C2246756E6374696F6E2074696D6564206F7574206166746572203630207365636F6E647320286D61784D656D6F727955736167653A20384D42295C227D227D');
CREATE TABLE "group_minutes" (
   "fingerprint" TEXT NOT NULL,
   "minute" INTEGER NOT NULL,
   "count" INTEGER NOT NULL,
   PRIMARY KEY ("fingerprint", "minute")
) STRICT;
INSERT INTO "group_minutes" VALUES('v1-f5466504f77d5179',29539440,1);
INSERT INTO "group_minutes" VALUES('v1-88f840d78ddc81ca',29539440,1);
INSERT INTO "group_minutes" VALUES('v1-3d33e0f3cc6a3ef4',29539440,1);
INSERT INTO "group_minutes" VALUES('v1-34b62ec90bfcb2bd',29539440,1);
INSERT INTO "group_minutes" VALUES('v1-1fb40f812346b3f5',29539450,1);
INSERT INTO "group_minutes" VALUES('v1-d0b183f4e38bd45c',29539452,1);
INSERT INTO "group_minutes" VALUES('v1-e74b31c396db6c1f',29539454,1);
INSERT INTO "group_minutes" VALUES('v1-d36c5c60b31ecfb9',29539454,1);
CREATE TABLE "groups" (
   "fingerprint" TEXT PRIMARY KEY NOT NULL,
   "function" TEXT NOT NULL,
   "condition" TEXT NOT NULL,
   "error_type" TEXT NOT NULL,
   "message" TEXT NOT NULL,
   "first_seen" TEXT NOT NULL,
   "last_seen" TEXT NOT NULL,
   "back_since" TEXT NOT NULL,
   "count" INTEGER NOT NULL
) STRICT;
INSERT INTO "groups" VALUES('v1-f5466504f77d5179','heals','InvocationError','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z',1);
INSERT INTO "groups" VALUES('v1-88f840d78ddc81ca','told','InvocationError','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z',1);
INSERT INTO "groups" VALUES('v1-3d33e0f3cc6a3ef4','known','InvocationError','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z',1);
INSERT INTO "groups" VALUES('v1-34b62ec90bfcb2bd','asks','InvocationError','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z',1);
INSERT INTO "groups" VALUES('v1-1fb40f812346b3f5','runs','InvocationError','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)','2026-03-01T12:10:00.000000Z','2026-03-01T12:10:00.000000Z','2026-03-01T12:10:00.000000Z',1);
INSERT INTO "groups" VALUES('v1-d0b183f4e38bd45c','lost','InvocationError','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)','2026-03-01T12:12:01.000000Z','2026-03-01T12:12:01.000000Z','2026-03-01T12:12:01.000000Z',1);
INSERT INTO "groups" VALUES('v1-e74b31c396db6c1f','waits','InvocationError','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)','2026-03-01T12:14:02.000000Z','2026-03-01T12:14:02.000000Z','2026-03-01T12:14:02.000000Z',1);
INSERT INTO "groups" VALUES('v1-d36c5c60b31ecfb9','untold','InvocationError','InvocationError','Function timed out after 60 seconds (maxMemoryUsage: 8MB)','2026-03-01T12:14:02.000000Z','2026-03-01T12:14:02.000000Z','2026-03-01T12:14:02.000000Z',1);
CREATE TABLE "lineage_links" (
   "key" TEXT PRIMARY KEY NOT NULL,
   "root" TEXT NOT NULL REFERENCES "lineages"("root"),
   "attempt" INTEGER NOT NULL
) STRICT;
INSERT INTO "lineage_links" VALUES('triage-702bba1d4a07f87d7e7e76deadafb942-1','1-heals',1);
INSERT INTO "lineage_links" VALUES('fake-1','1-heals',1);
INSERT INTO "lineage_links" VALUES('triage-a672f025b75b8b2fc476bd9ee0b59cab-1','1-runs',1);
INSERT INTO "lineage_links" VALUES('fake-2','1-runs',1);
INSERT INTO "lineage_links" VALUES('triage-191ee88272fe1fc337f38a336153d123-1','1-lost',1);
INSERT INTO "lineage_links" VALUES('triage-9ce1cb7c731f9babc024ffc6e142bb51-1','1-waits',1);
CREATE TABLE "lineages" (
   "root" TEXT PRIMARY KEY NOT NULL,
   "state" TEXT NOT NULL,
   "attempt" INTEGER NOT NULL,
   "started_at" TEXT NOT NULL,
   "updated_at" TEXT NOT NULL,
   "rule_id" TEXT NOT NULL,
   "version" INTEGER NOT NULL,
   "failures" INTEGER NOT NULL,
   "manual" INTEGER NOT NULL,
   "function" TEXT NOT NULL,
   "payload_key" TEXT NOT NULL
) STRICT;
INSERT INTO "lineages" VALUES('1-heals','healed',1,'2026-03-01T12:00:00.000000Z','2026-03-01T12:02:10.000000Z','again',4,1,0,'heals','129e965ba359d97d2038df02561a4c45');
INSERT INTO "lineages" VALUES('1-told','alerted',0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:05.000000Z','tell',2,1,0,'told','7844cc359b3cd52d9ca3ad93f6a9dfa4');
INSERT INTO "lineages" VALUES('1-known','ignored',0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','known',1,1,0,'known','75e7ca8401c6073046683a3d3f8f14cb');
INSERT INTO "lineages" VALUES('1-asks','held',0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','ask',1,1,0,'asks','4ced99b1dbda26a61a53df72c56c297e');
INSERT INTO "lineages" VALUES('1-runs','rerunning',1,'2026-03-01T12:10:00.000000Z','2026-03-01T12:12:00.000000Z','again',2,1,0,'runs','b330285783686270ddc7009eccd1fb70');
INSERT INTO "lineages" VALUES('1-lost','unknown',1,'2026-03-01T12:12:01.000000Z','2026-03-01T12:14:01.000000Z','again',2,1,0,'lost','3d2e8fa667f1b20f327684877f433c05');
INSERT INTO "lineages" VALUES('1-waits','rerun_pending',1,'2026-03-01T12:14:02.000000Z','2026-03-01T12:14:02.000000Z','again',1,1,0,'waits','33f8ae45f12abd6fb07720562ce635d4');
INSERT INTO "lineages" VALUES('1-untold','alerting',0,'2026-03-01T12:14:02.000000Z','2026-03-01T12:14:02.000000Z','tell',1,1,0,'untold','f8a026f754faf12cb9844a4321f73bfb');
CREATE TABLE "meta" (
   "key" TEXT PRIMARY KEY NOT NULL,
   "value" TEXT NOT NULL
) STRICT;
INSERT INTO "meta" VALUES('rule_set','a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab');
INSERT INTO "meta" VALUES('rules_loaded_at','2026-03-01T12:00:00.000000Z');
CREATE TABLE "outbox" (
   "id" INTEGER PRIMARY KEY,
   "key" TEXT NOT NULL,
   "kind" TEXT NOT NULL,
   "state" TEXT NOT NULL,
   "due_at" TEXT NOT NULL,
   "payload" TEXT NOT NULL,
   "root" TEXT REFERENCES "lineages"("root"),
   "group_key" TEXT REFERENCES "alert_groups"("key"),
   "attempts" INTEGER NOT NULL DEFAULT 0,
   "token" TEXT,
   "lease_until" TEXT,
   "note" TEXT NOT NULL DEFAULT '',
   "created_at" TEXT NOT NULL,
   "settled_at" TEXT
) STRICT;
INSERT INTO "outbox" VALUES(1,'triage-702bba1d4a07f87d7e7e76deadafb942-1','rerun','done','2026-03-01T12:02:00.000000Z','{"request_id":"1-heals","attempt":1,"function":{"name":"heals","service":"","qualifier":"","region":"cn-hangzhou","account":"1034"},"expect_within":86400.0,"idempotent":false,"give_up_at":"2026-03-01T18:00:00+00:00","alert":{"labels":{"function":"heals","condition":"InvocationError","error_type":"InvocationError","error_message":"Function timed out after 60 seconds (maxMemoryUsage: 8MB)","fingerprint":"v1-f5466504f77d5179","rule":"again","owner":"","runbook":""},"to":["default"],"on":["exhausted","overdue","refused","unknown"],"severity":"warning","group_by":["function","fingerprint"],"group_wait":5.0,"group_interval":300.0}}','1-heals',NULL,1,NULL,NULL,'submitted as request fake-1','2026-03-01T12:00:00.000000Z','2026-03-01T12:02:00.000000Z');
INSERT INTO "outbox" VALUES(2,'hold:1-asks','hold','pending','2026-03-02T12:00:00.000000Z','{"request_id":"1-asks","attempt":0,"reason":"was it paid?","rerun":{"function":{"name":"asks","service":"","qualifier":"","region":"cn-hangzhou","account":"1034"},"expect_within":86400.0,"idempotent":false},"alert":{"labels":{"function":"asks","condition":"InvocationError","error_type":"InvocationError","error_message":"Function timed out after 60 seconds (maxMemoryUsage: 8MB)","fingerprint":"v1-34b62ec90bfcb2bd","rule":"ask","owner":"","runbook":""},"to":["default"],"on":["exhausted","failed","held","overdue","refused","unknown"],"severity":"warning","group_by":["function","fingerprint"],"group_wait":30.0,"group_interval":300.0}}','1-asks',NULL,0,NULL,NULL,'','2026-03-01T12:00:00.000000Z',NULL);
INSERT INTO "outbox" VALUES(3,'flush:087a04f5986ddda3','flush','done','2026-03-01T12:05:05.000000Z','{}',NULL,'087a04f5986ddda3',2,NULL,NULL,'nothing waits','2026-03-01T12:00:00.000000Z','2026-03-01T12:05:05.000000Z');
INSERT INTO "outbox" VALUES(4,'notify:087a04f5986ddda3:1:default','notify','done','2026-03-01T12:00:05.000000Z','{"receiver":"default","flush":1,"at":"2026-03-01T12:00:05+00:00","code":"20cd92","severity":"warning","title":"[warning] told failed: InvocationError #20cd92","body":"Error: Function timed out after 60 seconds (maxMemoryUsage: 8MB)\nCount: 1 since 2026-03-01 12:00:00 UTC\nOutcome: 1 of 1 failed; told at once, as the rule wants\nOwner: (nobody) · rule: tell\n  1-told at 2026-03-01 12:00:00 UTC\nLook: triage failures show 1-told"}',NULL,'087a04f5986ddda3',1,NULL,NULL,'sent to 1','2026-03-01T12:00:05.000000Z','2026-03-01T12:00:05.000000Z');
INSERT INTO "outbox" VALUES(5,'expect:triage-702bba1d4a07f87d7e7e76deadafb942-1','expect','cancelled','2026-03-02T12:02:00.000000Z','{"request_id":"1-heals","attempt":1,"function":{"name":"heals","service":"","qualifier":"","region":"cn-hangzhou","account":"1034"},"expect_within":86400.0,"idempotent":false,"give_up_at":"2026-03-01T18:00:00+00:00","alert":{"labels":{"function":"heals","condition":"InvocationError","error_type":"InvocationError","error_message":"Function timed out after 60 seconds (maxMemoryUsage: 8MB)","fingerprint":"v1-f5466504f77d5179","rule":"again","owner":"","runbook":""},"to":["default"],"on":["exhausted","overdue","refused","unknown"],"severity":"warning","group_by":["function","fingerprint"],"group_wait":5.0,"group_interval":300.0},"task_id":"triage-702bba1d4a07f87d7e7e76deadafb942-1"}','1-heals',NULL,0,NULL,NULL,'','2026-03-01T12:02:00.000000Z','2026-03-01T12:02:10.000000Z');
INSERT INTO "outbox" VALUES(6,'resolve:triage-702bba1d4a07f87d7e7e76deadafb942-1','resolve','done','2026-03-01T12:02:10.000000Z','{"request_id":"fake-1","attempt":1,"task_id":"triage-702bba1d4a07f87d7e7e76deadafb942-1","function":{"name":"heals","service":"","qualifier":"","region":"cn-hangzhou","account":"1034"},"alert":{"labels":{"function":"heals","condition":"","error_type":"","error_message":"","fingerprint":"v1-cf761b4c4ac8d57e","rule":"","owner":"","runbook":""},"to":["default"],"on":["exhausted","failed","held","overdue","refused","unknown"],"severity":"warning","group_by":["function","fingerprint"],"group_wait":30.0,"group_interval":300.0}}','1-heals',NULL,1,NULL,NULL,'the provider says Succeeded','2026-03-01T12:02:10.000000Z','2026-03-01T12:02:10.000000Z');
INSERT INTO "outbox" VALUES(7,'triage-a672f025b75b8b2fc476bd9ee0b59cab-1','rerun','done','2026-03-01T12:12:00.000000Z','{"request_id":"1-runs","attempt":1,"function":{"name":"runs","service":"","qualifier":"","region":"cn-hangzhou","account":"1034"},"expect_within":86400.0,"idempotent":false,"give_up_at":"2026-03-01T18:10:00+00:00","alert":{"labels":{"function":"runs","condition":"InvocationError","error_type":"InvocationError","error_message":"Function timed out after 60 seconds (maxMemoryUsage: 8MB)","fingerprint":"v1-1fb40f812346b3f5","rule":"again","owner":"","runbook":""},"to":["default"],"on":["exhausted","overdue","refused","unknown"],"severity":"warning","group_by":["function","fingerprint"],"group_wait":5.0,"group_interval":300.0}}','1-runs',NULL,1,NULL,NULL,'submitted as request fake-2','2026-03-01T12:10:00.000000Z','2026-03-01T12:12:00.000000Z');
INSERT INTO "outbox" VALUES(8,'expect:triage-a672f025b75b8b2fc476bd9ee0b59cab-1','expect','pending','2026-03-02T12:12:00.000000Z','{"request_id":"1-runs","attempt":1,"function":{"name":"runs","service":"","qualifier":"","region":"cn-hangzhou","account":"1034"},"expect_within":86400.0,"idempotent":false,"give_up_at":"2026-03-01T18:10:00+00:00","alert":{"labels":{"function":"runs","condition":"InvocationError","error_type":"InvocationError","error_message":"Function timed out after 60 seconds (maxMemoryUsage: 8MB)","fingerprint":"v1-1fb40f812346b3f5","rule":"again","owner":"","runbook":""},"to":["default"],"on":["exhausted","overdue","refused","unknown"],"severity":"warning","group_by":["function","fingerprint"],"group_wait":5.0,"group_interval":300.0},"task_id":"triage-a672f025b75b8b2fc476bd9ee0b59cab-1"}','1-runs',NULL,0,NULL,NULL,'','2026-03-01T12:12:00.000000Z',NULL);
INSERT INTO "outbox" VALUES(9,'triage-191ee88272fe1fc337f38a336153d123-1','rerun','unknown','2026-03-01T12:14:06.000000Z','{"lost_at":"2026-03-01T12:14:01+00:00","request_id":"1-lost","attempt":1,"function":{"name":"lost","service":"","qualifier":"","region":"cn-hangzhou","account":"1034"},"expect_within":86400.0,"idempotent":false,"give_up_at":"2026-03-01T18:12:01+00:00","alert":{"labels":{"function":"lost","condition":"InvocationError","error_type":"InvocationError","error_message":"Function timed out after 60 seconds (maxMemoryUsage: 8MB)","fingerprint":"v1-d0b183f4e38bd45c","rule":"again","owner":"","runbook":""},"to":["default"],"on":["exhausted","overdue","refused","unknown"],"severity":"warning","group_by":["function","fingerprint"],"group_wait":5.0,"group_interval":300.0}}','1-lost',NULL,1,NULL,NULL,'no_answer','2026-03-01T12:12:01.000000Z',NULL);
INSERT INTO "outbox" VALUES(10,'triage-9ce1cb7c731f9babc024ffc6e142bb51-1','rerun','pending','2026-03-01T12:16:02.000000Z','{"request_id":"1-waits","attempt":1,"function":{"name":"waits","service":"","qualifier":"","region":"cn-hangzhou","account":"1034"},"expect_within":86400.0,"idempotent":false,"give_up_at":"2026-03-01T18:14:02+00:00","alert":{"labels":{"function":"waits","condition":"InvocationError","error_type":"InvocationError","error_message":"Function timed out after 60 seconds (maxMemoryUsage: 8MB)","fingerprint":"v1-e74b31c396db6c1f","rule":"again","owner":"","runbook":""},"to":["default"],"on":["exhausted","overdue","refused","unknown"],"severity":"warning","group_by":["function","fingerprint"],"group_wait":5.0,"group_interval":300.0}}','1-waits',NULL,0,NULL,NULL,'','2026-03-01T12:14:02.000000Z',NULL);
INSERT INTO "outbox" VALUES(11,'flush:a7728bb82f43f67b','flush','pending','2026-03-01T12:14:07.000000Z','{}',NULL,'a7728bb82f43f67b',0,NULL,NULL,'','2026-03-01T12:14:02.000000Z',NULL);
CREATE TABLE "quarantine" (
   "id" INTEGER PRIMARY KEY,
   "received_at" TEXT NOT NULL,
   "source" TEXT NOT NULL,
   "message_id" TEXT NOT NULL,
   "reason" TEXT NOT NULL,
   "place" TEXT NOT NULL,
   "detail" TEXT NOT NULL,
   "body" BLOB NOT NULL
) STRICT;
INSERT INTO "quarantine" VALUES(1,'2026-03-01T12:00:00.000000Z','fake','fake-5','not_base64','byte 0','starts with b''garbage'': neither JSON nor base64 (Incorrect padding)',X'67617262616765');
CREATE TABLE "rule_sets" (
   "digest" TEXT PRIMARY KEY NOT NULL,
   "loaded_at" TEXT NOT NULL,
   "sources" TEXT NOT NULL
) STRICT;
INSERT INTO "rule_sets" VALUES('a17d1534ec48fea11adf0ab8b99be77163877077b9077dfa80243931e4dc03ab','2026-03-01T12:00:00.000000Z','[{"name":"rules.yaml","text":"version: 1\nrules:\n\n  - id: again\n    match: {function: [heals, runs, lost, waits]}\n    rerun: {after: 2m, backoff: {jitter: 0}, max_attempts: 2, give_up_after: 6h}\n    alert: {group_wait: 5s}\n  - {id: known, match: {function: known}, ignore: it is known to fail}\n  - {id: ask, match: {function: asks}, hold: {reason: was it paid?, for: 1d}}\n  - {id: tell, alert: {group_by: [function], group_wait: 5s}}\n"}]');
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX "idx_group_minutes_minute"
    ON "group_minutes" ("minute");
CREATE INDEX idx_lineages_unknown ON lineages(payload_key) WHERE state = 'unknown';
CREATE UNIQUE INDEX "idx_envelopes_request_id"
    ON "envelopes" ("request_id");
CREATE INDEX "idx_envelopes_received_at"
    ON "envelopes" ("received_at");
CREATE INDEX idx_envelopes_members ON envelopes(root) WHERE attempt > 0;
CREATE UNIQUE INDEX "idx_conflicts_request_id_digest"
    ON "conflicts" ("request_id", "digest");
CREATE UNIQUE INDEX idx_quarantine_message ON quarantine(message_id, source) WHERE message_id != '';
CREATE INDEX "idx_alerts_group_key_flush"
    ON "alerts" ("group_key", "flush");
CREATE INDEX idx_alerts_root ON alerts(root) WHERE root IS NOT NULL;
CREATE INDEX "idx_deliveries_group_key_flush"
    ON "deliveries" ("group_key", "flush");
CREATE UNIQUE INDEX "idx_outbox_key"
    ON "outbox" ("key");
CREATE INDEX idx_outbox_due ON outbox(due_at) WHERE state IN ('pending', 'unknown');
CREATE INDEX idx_outbox_open ON outbox(lease_until) WHERE lease_until IS NOT NULL OR state = 'unknown';
CREATE INDEX idx_outbox_root ON outbox(root) WHERE root IS NOT NULL;
CREATE INDEX "idx_deeds_root"
    ON "deeds" ("root");
COMMIT;
